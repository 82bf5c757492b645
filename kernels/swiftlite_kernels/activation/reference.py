"""Gated activations in torch."""

import torch
import torch.nn.functional as F


def silu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    gate, up = input.chunk(2, dim=-1)
    torch.mul(F.silu(gate), up, out=out)


def mul_and_silu(out: torch.Tensor, input: torch.Tensor) -> None:
    up, gate = input.chunk(2, dim=-1)
    torch.mul(up, F.silu(gate), out=out)


def gelu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    gate, up = input.chunk(2, dim=-1)
    torch.mul(F.gelu(gate), up, out=out)


def gelu_tanh_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    gate, up = input.chunk(2, dim=-1)
    torch.mul(F.gelu(gate, approximate='tanh'), up, out=out)
