"""What a step of the engine reads, derived on the device from its rows and the batch state."""

from dataclasses import dataclass

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['StepRows', 'StepTensors', 'prepare_step']


@dataclass(frozen=True)
class StepRows:
    """R rows, one a sequence, as int32 vectors: row i computes tokens [start, start + count) of a slot.

    slots [R], starts [R]; cu_seqlens [R + 1]: offsets of the rows' tokens, the last one T's used part; sampled [R]: 1
    where a token is drawn behind the row. Rows of a padded step have count 0.
    """

    slots: torch.Tensor
    starts: torch.Tensor
    cu_seqlens: torch.Tensor
    sampled: torch.Tensor


@dataclass(frozen=True)
class StepTensors:
    """Written by prepare_step. T tokens (padding included), R rows, W blocks."""

    input_ids: torch.Tensor  # int64 [T], 0 for padding
    positions: torch.Tensor  # int64 [T], 0 for padding
    slot_mapping: torch.Tensor  # int64 [T], -1 for padding
    seq_lens: torch.Tensor  # int32 [R], tokens of the sequence with this step's; 0 for padding
    block_tables: torch.Tensor  # int32 [R, W]; entries beyond a sequence's blocks are left as they are
    last: torch.Tensor  # int64 [R], the row's last token in [0, T)
    lengths: torch.Tensor  # int64 [R], seq_lens again
    write_at: (
        torch.Tensor
    )  # int64 [R], place in the flat token table where the drawn token goes; row's last column: nowhere


def prepare_step(
    rows: StepRows, tokens: torch.Tensor, block_tables: torch.Tensor, block_size: int, out: StepTensors
) -> None:
    """Fill `out`.

    tokens int32 [slots, N]: known tokens by slot, column N - 1 unused; block_tables int32 [slots, W']: blocks by slot,
    W' ≥ W.
    """
    backend('step', tokens).prepare_step(rows, tokens, block_tables, block_size, out)
