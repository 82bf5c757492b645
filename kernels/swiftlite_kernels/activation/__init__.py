"""Gated activations: out[..., d] = act(input[..., :d]) * input[..., d:].

out [..., d] and input [..., 2d] of one dtype. The activation is computed in fp32 and rounded to the dtype before the
multiplication, so results equal act() followed by a product.
"""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['gelu_and_mul', 'gelu_tanh_and_mul', 'mul_and_silu', 'silu_and_mul']


def silu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    """SwiGLU: silu(gate) * up (Shazeer 2020)."""
    backend('activation', input).silu_and_mul(out, input)


def mul_and_silu(out: torch.Tensor, input: torch.Tensor) -> None:
    """input[..., :d] * silu(input[..., d:]): the halves the other way round."""
    backend('activation', input).mul_and_silu(out, input)


def gelu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    """GeGLU with the exact (erf) GELU."""
    backend('activation', input).gelu_and_mul(out, input)


def gelu_tanh_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    """GeGLU with the tanh approximation of GELU."""
    backend('activation', input).gelu_tanh_and_mul(out, input)
