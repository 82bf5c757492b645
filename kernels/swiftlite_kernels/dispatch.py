"""Choose between an op family's reference and its Triton version."""

from importlib import import_module
from types import ModuleType

import torch


def backend(family: str, tensor: torch.Tensor) -> ModuleType:
    """`swiftlite_kernels.<family>.triton` for a CUDA tensor, else `.reference`."""
    return import_module(f'swiftlite_kernels.{family}.{"triton" if tensor.is_cuda else "reference"}')
