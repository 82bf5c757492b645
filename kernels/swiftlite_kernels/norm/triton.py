"""RMSNorm in Triton: a program a row, or a few short rows; one read and one write of each element."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import as_rows, begin, early_launch, next_power_of_2

SHORT = 1024  # elements a program takes on when rows are short


@triton.jit(do_not_specialize=['rows', 'inner'])
def norm_kernel(
    out, x, residual, weight, rows, inner, hidden, epsilon,
    out_outer, out_inner, x_outer, x_inner, residual_outer, residual_inner,
    ADD: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (column < hidden)
    outer, place = row // inner, row % inner
    value = tl.load(x + outer * x_outer + place * x_inner + column, mask, other=0.0)
    if ADD:
        at = residual + outer * residual_outer + place * residual_inner + column
        before = tl.load(at, mask, other=0.0)
        value = (value.to(tl.float32) + before.to(tl.float32)).to(before.dtype)
        tl.store(at, value, mask)
    wide = value.to(tl.float32)
    mean = tl.sum(wide * wide, 1) / hidden
    normal = (wide * tl.rsqrt(mean + epsilon)[:, None]).to(value.dtype)
    if WEIGHTED:
        scale = tl.load(weight + column, column < hidden, other=0.0)
        normal = normal.to(tl.float32) * scale.to(tl.float32)
    tl.store(out + outer * out_outer + place * out_inner + column, normal.to(out.dtype.element_ty), mask)


def launch(
    out: torch.Tensor, x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, epsilon: float
) -> None:
    hidden = x.shape[-1]
    outer, inner, x_outer, x_inner = as_rows(x)
    rows = outer * inner
    if rows == 0:
        return
    _, _, out_outer, out_inner = as_rows(out)
    _, _, residual_outer, residual_inner = as_rows(x if residual is None else residual)
    block = next_power_of_2(hidden)
    short = max(1, SHORT // block)
    warps = 1 if block * short <= 256 else 4 if block * short <= 2048 else 8
    norm_kernel[(triton.cdiv(rows, short),)](
        out, x, residual, weight, rows, inner, hidden, epsilon,
        out_outer, out_inner, x_outer, x_inner, residual_outer, residual_inner,
        ADD=residual is not None, WEIGHTED=weight is not None, ROWS=short, BLOCK=block, **early_launch(x),
        num_warps=warps,
    )


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:
    launch(out, input, None, weight, epsilon)


def fused_add_rms_norm(
    input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float
) -> None:
    launch(input, input, residual, weight, epsilon)
