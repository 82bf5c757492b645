"""prepare_step in Triton: one launch; the first programs take a row each, the others a run of tokens."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.step import StepRows, StepTensors

TOKENS = 128  # of a program
TABLE = 128  # block-table entries of a loop step


@triton.jit
def write_row(
    row,
    slots,
    starts,
    cu,
    sampled,
    tables,
    seq_lens,
    row_tables,
    last,
    lengths,
    write_at,
    table_width,
    tokens_width,
    tables_stride,
    row_tables_stride,
    BLOCK_SIZE: tl.constexpr,
    TABLE: tl.constexpr,
):
    """What belongs to one row: lengths, places, and its part of the block table."""
    slot = tl.load(slots + row).to(tl.int64)
    begin, end = tl.load(cu + row), tl.load(cu + row + 1)
    length = tl.load(starts + row) + end - begin
    length = tl.where(end == begin, 0, length)
    tl.store(seq_lens + row, length)
    tl.store(lengths + row, length.to(tl.int64))
    tl.store(last + row, tl.maximum(end - 1, 0).to(tl.int64))
    column = tl.where(tl.load(sampled + row) > 0, length, tokens_width - 1)
    tl.store(write_at + row, slot * tokens_width + column)
    used = tl.minimum(tl.cdiv(length, BLOCK_SIZE), table_width)
    for first in range(0, used, TABLE):
        at = first + tl.arange(0, TABLE)
        block = tl.load(tables + slot * tables_stride + at, at < used, other=0)
        tl.store(row_tables + row.to(tl.int64) * row_tables_stride + at, block, at < used)


@triton.jit
def write_tokens(
    token,
    slots,
    starts,
    cu,
    tokens,
    tables,
    input_ids,
    positions,
    slot_mapping,
    num_rows,
    num_tokens,
    tokens_width,
    tables_stride,
    BLOCK_SIZE: tl.constexpr,
):
    """What belongs to a run of tokens [TOKENS]: id, position, cache slot."""
    in_range = token < num_tokens
    valid = token < tl.load(cu + num_rows)
    low = token * 0  # the last row that begins at or before the token, by bisection
    high = low + num_rows
    for _ in range(16):
        middle = (low + high) // 2
        before = tl.load(cu + middle) <= token
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    row = tl.minimum(low, num_rows - 1)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.where(valid, token - tl.load(cu + row) + tl.load(starts + row), 0)
    known = tl.load(tokens + slot * tokens_width + position, valid, other=0)
    block = tl.load(tables + slot * tables_stride + position // BLOCK_SIZE, valid, other=0).to(tl.int64)
    place = tl.where(valid, block * BLOCK_SIZE + position % BLOCK_SIZE, -1)
    tl.store(input_ids + token, known.to(tl.int64), in_range)
    tl.store(positions + token, position.to(tl.int64), in_range)
    tl.store(slot_mapping + token, place, in_range)


@triton.jit(do_not_specialize=['num_rows', 'num_tokens', 'table_width'])
def step_kernel(
    slots,
    starts,
    cu,
    sampled,
    tokens,
    tables,
    input_ids,
    positions,
    slot_mapping,
    seq_lens,
    row_tables,
    last,
    lengths,
    write_at,
    num_rows,
    num_tokens,
    table_width,
    tokens_width,
    tables_stride,
    row_tables_stride,
    BLOCK_SIZE: tl.constexpr,
    TOKENS: tl.constexpr,
    TABLE: tl.constexpr,
):
    program = tl.program_id(0)
    if program < num_rows:
        write_row(
            program,
            slots,
            starts,
            cu,
            sampled,
            tables,
            seq_lens,
            row_tables,
            last,
            lengths,
            write_at,
            table_width,
            tokens_width,
            tables_stride,
            row_tables_stride,
            BLOCK_SIZE,
            TABLE,
        )
    else:
        write_tokens(
            (program - num_rows) * TOKENS + tl.arange(0, TOKENS),
            slots,
            starts,
            cu,
            tokens,
            tables,
            input_ids,
            positions,
            slot_mapping,
            num_rows,
            num_tokens,
            tokens_width,
            tables_stride,
            BLOCK_SIZE,
        )


def prepare_step(
    rows: StepRows, tokens: torch.Tensor, block_tables: torch.Tensor, block_size: int, out: StepTensors
) -> None:
    num_rows, num_tokens = rows.slots.shape[0], out.input_ids.shape[0]
    step_kernel[(num_rows + triton.cdiv(num_tokens, TOKENS),)](
        rows.slots,
        rows.starts,
        rows.cu_seqlens,
        rows.sampled,
        tokens,
        block_tables,
        out.input_ids,
        out.positions,
        out.slot_mapping,
        out.seq_lens,
        out.block_tables,
        out.last,
        out.lengths,
        out.write_at,
        num_rows,
        num_tokens,
        out.block_tables.shape[1],
        tokens.shape[1],
        block_tables.stride(0),
        out.block_tables.stride(0),
        BLOCK_SIZE=block_size,
        TOKENS=TOKENS,
        TABLE=TABLE,
        num_warps=4,
    )
