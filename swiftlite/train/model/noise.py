"""NEFTune: noise on the embeddings while training (arXiv 2310.05914)."""

from typing import Any

import torch
from torch import nn


def add_noise(model: Any, alpha: float) -> None:
    """Let a causal LM add uniform noise of at most alpha / sqrt(L * H) to its embeddings in training mode.

    L is the length of the row that a token belongs to: of a batch [B, L], or from where 'position_ids' [1, T] begin
    anew. Nothing is added in evaluation mode.
    """
    rows: list[torch.Tensor | None] = [None]

    def remember(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        rows[0] = kwargs.get('position_ids')

    def noise(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        lengths = row_lengths(rows[0], output)
        size = alpha * (lengths * output.shape[-1]).rsqrt()  # [B, L] or [B, 1]
        return output + (torch.empty_like(output).uniform_(-1, 1) * size[..., None].to(output.dtype))

    base = model.get_base_model() if hasattr(model, 'get_base_model') else model
    base.base_model.register_forward_pre_hook(remember, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(noise)


def row_lengths(position_ids: torch.Tensor | None, embedded: torch.Tensor) -> torch.Tensor:
    """Tokens of the row that each token of [B, L, H] belongs to, fp32: [B, L], or [B, 1] where a row is a sample."""
    if position_ids is None or position_ids.shape[0] != 1:
        return torch.full((embedded.shape[0], 1), embedded.shape[1], dtype=torch.float32, device=embedded.device)
    row = (position_ids[0] == 0).cumsum(0) - 1
    return torch.zeros(len(row), device=embedded.device).index_add_(0, row, torch.ones_like(row).float())[row][None]
