"""prepare_step in Triton: one launch; the first programs take a row each, the others a run of tokens."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.step import StepRows, StepTensors

TOKENS = 128  # of a program
TABLE = 128  # block-table entries of a loop step


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
        slot = tl.load(slots + program).to(tl.int64)
        begin, end = tl.load(cu + program), tl.load(cu + program + 1)
        length = tl.load(starts + program) + end - begin
        if end == begin:
            length = 0
        tl.store(seq_lens + program, length)
        tl.store(lengths + program, length.to(tl.int64))
        tl.store(last + program, tl.maximum(end - 1, 0).to(tl.int64))
        column = tokens_width - 1
        if tl.load(sampled + program) > 0:
            column = length
        tl.store(write_at + program, slot * tokens_width + column)
        used = tl.minimum(tl.cdiv(length, BLOCK_SIZE), table_width)
        for first in range(0, used, TABLE):
            at = first + tl.arange(0, TABLE)
            block = tl.load(tables + slot * tables_stride + at, at < used, other=0)
            tl.store(row_tables + program.to(tl.int64) * row_tables_stride + at, block, at < used)
    else:
        token = (program - num_rows) * TOKENS + tl.arange(0, TOKENS)
        in_range = token < num_tokens
        valid = token < tl.load(cu + num_rows)
        low = tl.zeros([TOKENS], tl.int32)  # the last row that begins at or before the token
        high = tl.zeros([TOKENS], tl.int32) + num_rows
        for _ in range(16):
            middle = (low + high) // 2
            before = tl.load(cu + middle) <= token
            low = tl.where(before, middle, low)
            high = tl.where(before, high, middle)
        row = tl.minimum(low, num_rows - 1)
        slot = tl.load(slots + row).to(tl.int64)
        position = token - tl.load(cu + row) + tl.load(starts + row)
        position = tl.where(valid, position, 0)
        known = tl.load(tokens + slot * tokens_width + position, valid, other=0)
        block = tl.load(tables + slot * tables_stride + position // BLOCK_SIZE, valid, other=0).to(tl.int64)
        place = tl.where(valid, block * BLOCK_SIZE + position % BLOCK_SIZE, -1)
        tl.store(input_ids + token, known.to(tl.int64), in_range)
        tl.store(positions + token, position.to(tl.int64), in_range)
        tl.store(slot_mapping + token, place, in_range)


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
