"""Cross entropy of rows of logits in Triton: a program a row, which is read twice and written once."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, early_launch, next_power_of_2, tanh


@triton.jit
def capped(x, softcap, CAP: tl.constexpr):
    return softcap * tanh(x / softcap) if CAP else x


@triton.jit
def cross_entropy_kernel(
    losses, correct, logits, targets, weights, stride, vocab, softcap, ignore_index,
    CAP: tl.constexpr, WEIGHTED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    line = logits + row * stride
    place = tl.arange(0, BLOCK)
    if target == ignore_index:
        tl.store(losses + row, 0.0)
        tl.store(correct + row, False)
        if GRADIENT:
            for start in range(0, vocab, BLOCK):
                tl.store(line + start + place, tl.zeros([BLOCK], line.dtype.element_ty), start + place < vocab)
    else:
        aim = tl.load(line + target).to(tl.float32)
        largest, total, beaten = float('-inf'), 0.0, 0
        for start in range(0, vocab, BLOCK):
            column = start + place
            x = tl.load(line + column, column < vocab, other=float('-inf')).to(tl.float32)
            beaten += tl.sum(((x > aim) | ((x == aim) & (column < target))).to(tl.int32))
            x = tl.where(column < vocab, capped(x, softcap, CAP), float('-inf'))
            higher = tl.maximum(largest, tl.max(x))
            total = total * tl.exp(largest - higher) + tl.sum(tl.exp(x - higher))
            largest = higher
        norm = largest + tl.log(total)
        weight = tl.load(weights + row) if WEIGHTED else 1.0
        tl.store(losses + row, (norm - capped(aim, softcap, CAP)) * weight)
        tl.store(correct + row, beaten == 0)
        if GRADIENT:
            for start in range(0, vocab, BLOCK):
                column = start + place
                x = tl.load(line + column, column < vocab, other=0.0).to(tl.float32)
                bent = capped(x, softcap, CAP)
                slope = tl.exp(bent - norm) - tl.where(column == target, 1.0, 0.0)
                if CAP:
                    slope *= 1 - (bent / softcap) * (bent / softcap)
                tl.store(line + column, (slope * weight).to(line.dtype.element_ty), column < vocab)


def cross_entropy(
    losses: torch.Tensor,
    correct: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    softcap: float = 0.0,
    ignore_index: int = -100,
    gradient: bool = True,
) -> None:
    rows, vocab = logits.shape
    if rows == 0:
        return
    if logits.stride(1) != 1:
        raise ValueError(f'logits must be contiguous along the vocabulary, got strides {logits.stride()}')
    block = min(8192, next_power_of_2(vocab))
    cross_entropy_kernel[(rows,)](
        losses, correct, logits, targets, losses if weights is None else weights, logits.stride(0), vocab,
        float(softcap), ignore_index, CAP=softcap > 0, WEIGHTED=weights is not None, GRADIENT=gradient, BLOCK=block,
        **early_launch(logits), num_warps=max(4, min(16, block // 512)),
    )
