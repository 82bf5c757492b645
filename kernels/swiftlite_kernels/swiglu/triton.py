"""SwiGLU and its gradient in Triton: one pass over each tensor."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, divide, early_launch, exp

BLOCK = 2048


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x)) without overflow."""
    small = exp(-tl.abs(x))
    return divide(tl.where(x < 0, small, 1.0), 1 + small)


@triton.jit(do_not_specialize=['count'])
def swiglu_kernel(out, gate, up, count, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    begin(EARLY)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    x = tl.load(gate + at, mask, other=0.0)
    wide = x.to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    silu = (wide * logistic(wide)).to(x.dtype).to(tl.float32)
    tl.store(out + at, (silu * y).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['count'])
def swiglu_backward_kernel(
    gate, up, grad_out, count, OUTPUT: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    begin(EARLY)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    x = tl.load(gate + at, mask, other=0.0)
    wide = x.to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    slope = tl.load(grad_out + at, mask, other=0.0).to(tl.float32)
    sigmoid = logistic(wide)
    silu = (wide * sigmoid).to(x.dtype).to(tl.float32)
    if OUTPUT:
        tl.store(grad_out + at, (silu * y).to(x.dtype), mask)
    tl.store(up + at, (slope * silu).to(x.dtype), mask)
    tl.store(gate + at, (slope * y * sigmoid * (1 + wide * (1 - sigmoid))).to(x.dtype), mask)


def swiglu(out: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> None:
    count = dense(out, gate, up)
    if count:
        swiglu_kernel[(triton.cdiv(count, BLOCK),)](
            out, gate, up, count, BLOCK=BLOCK, **early_launch(gate), num_warps=8
        )


def swiglu_backward(gate: torch.Tensor, up: torch.Tensor, grad_out: torch.Tensor, output: bool = True) -> None:
    count = dense(gate, up, grad_out)
    if count:
        swiglu_backward_kernel[(triton.cdiv(count, BLOCK),)](
            gate, up, grad_out, count, OUTPUT=output, BLOCK=BLOCK, **early_launch(gate), num_warps=8
        )


def dense(*tensors: torch.Tensor) -> int:
    """Elements of each of the tensors, which are contiguous and of one shape (else ValueError)."""
    if any(not x.is_contiguous() or x.shape != tensors[0].shape for x in tensors):
        raise ValueError(f'contiguous tensors of one shape are needed, got {[tuple(x.shape) for x in tensors]}')
    return tensors[0].numel()
