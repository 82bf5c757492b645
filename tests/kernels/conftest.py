"""Kernel tests run on the references, on Triton with a GPU, and on Triton interpreted under TRITON_INTERPRET=1."""

import os
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import pytest
import torch

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


@dataclass(frozen=True)
class Target:
    """An implementation of the ops and the device it runs on."""

    name: str
    device: str

    def ops(self, family: str) -> ModuleType:
        return import_module(f'swiftlite_kernels.{family}{".triton" if self.name == "interpreted" else ""}')

    @property
    def dtypes(self) -> list[torch.dtype]:
        # bf16 products are wrong in the interpreter
        return [torch.float32, torch.float16] if self.name == 'interpreted' else [torch.float32, torch.float16,
        torch.bfloat16]


def names() -> list[str]:
    if INTERPRETED:
        return ['interpreted']
    return ['reference', 'cuda'] if torch.cuda.is_available() else ['reference']


@pytest.fixture(params=names(), scope='session')
def target(request: pytest.FixtureRequest) -> Target:
    torch.manual_seed(0)
    return Target(request.param, 'cuda' if request.param == 'cuda' else 'cpu')
