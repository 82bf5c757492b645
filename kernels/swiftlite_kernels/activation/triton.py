"""Gated activations in Triton: one pass over the input."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import as_rows, begin, early_launch, next_power_of_2, silu, tanh

SILU, GELU, GELU_TANH = 0, 1, 2


@triton.jit(do_not_specialize=['inner'])
def gate_kernel(
    out, x, inner, width, out_outer, out_inner, x_outer, x_inner,
    ACT: tl.constexpr, GATE_FIRST: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    source = x + (row // inner) * x_outer + (row % inner) * x_inner + column
    first = tl.load(source, mask, other=0.0)
    second = tl.load(source + width, mask, other=0.0)
    gate = (first if GATE_FIRST else second).to(tl.float32)
    up = second if GATE_FIRST else first
    if ACT == 0:
        active = silu(gate, x.dtype.element_ty == tl.float32)
    elif ACT == 1:
        active = gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    else:
        cube = gate * gate * gate
        active = 0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * cube)))
    product = active.to(x.dtype.element_ty).to(tl.float32) * up.to(tl.float32)
    tl.store(out + (row // inner) * out_outer + (row % inner) * out_inner + column, product.to(out.dtype.element_ty),
    mask)


def launch(out: torch.Tensor, x: torch.Tensor, act: int, gate_first: bool) -> None:
    outer, inner, x_outer, x_inner = as_rows(x)
    _, _, out_outer, out_inner = as_rows(out)
    width = out.shape[-1]
    if outer * inner == 0:
        return
    block = min(1024, next_power_of_2(width))
    gate_kernel[(outer * inner, triton.cdiv(width, block))](
        out, x, inner, width, out_outer, out_inner, x_outer, x_inner,
        ACT=act, GATE_FIRST=gate_first, BLOCK=block, **early_launch(x), num_warps=4,
    )


def silu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    launch(out, input, SILU, True)


def mul_and_silu(out: torch.Tensor, input: torch.Tensor) -> None:
    launch(out, input, SILU, False)


def gelu_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    launch(out, input, GELU, True)


def gelu_tanh_and_mul(out: torch.Tensor, input: torch.Tensor) -> None:
    launch(out, input, GELU_TANH, True)
