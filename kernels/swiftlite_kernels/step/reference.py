"""prepare_step in torch."""

import torch

from swiftlite_kernels.step import StepRows, StepTensors


def prepare_step(
    rows: StepRows, tokens: torch.Tensor, block_tables: torch.Tensor, block_size: int, out: StepTensors
) -> None:
    slots, cu = rows.slots.long(), rows.cu_seqlens.long()
    counts = cu[1:] - cu[:-1]
    starts = rows.starts.long()
    token = torch.arange(out.input_ids.shape[0], device=tokens.device)
    row = torch.searchsorted(cu[1:], token, right=True).clamp_(max=slots.shape[0] - 1)
    used = token < cu[-1]
    positions = torch.where(used, token - cu[row] + starts[row], 0)
    slot = slots[row]
    out.positions.copy_(positions)
    out.input_ids.copy_(torch.where(used, tokens[slot, positions], 0))
    block = block_tables[slot, positions // block_size].long()
    out.slot_mapping.copy_(torch.where(used, block * block_size + positions % block_size, -1))
    lengths = torch.where(counts > 0, starts + counts, 0)
    out.lengths.copy_(lengths)
    out.seq_lens.copy_(lengths)
    out.last.copy_((cu[1:] - 1).clamp(min=0))
    width = tokens.shape[1]
    out.write_at.copy_(slots * width + torch.where(rows.sampled > 0, lengths, width - 1))
    out.block_tables.copy_(block_tables[slots, : out.block_tables.shape[1]])
