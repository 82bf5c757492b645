"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with the frequency scalings checkpoints ask for."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..errors import SwiftliteError, nearest


def inverse_frequencies(dim: int, theta: float, scaling: dict | None) -> torch.Tensor:
    """[dim / 2] fp32. `scaling` is config.json's rope_scaling: None, default, linear or llama3."""
    freq = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    kind = 'default' if not scaling else scaling.get('rope_type') or scaling.get('type') or 'default'
    if kind == 'default':
        return freq
    assert scaling is not None
    if kind == 'linear':
        return freq / scaling['factor']
    if kind == 'llama3':  # Llama 3.1 model card: wavelengths beyond the original context are stretched
        low, high, factor = scaling['low_freq_factor'], scaling['high_freq_factor'], scaling['factor']
        ratio = scaling['original_max_position_embeddings'] * freq / (2 * math.pi)  # turns in the original context
        smooth = ((ratio - low) / (high - low)).clamp(0, 1)
        return freq * ((1 - smooth) / factor + smooth)
    raise SwiftliteError(
        f"rope_scaling type '{kind}' is not supported{nearest(kind, ('default', 'linear', 'llama3'))}; "
        'supported: default, linear, llama3.'
    )


class RotaryEmbedding(nn.Module):
    """cos_sin [max_positions, head_dim]: cosines ‖ sines of every position, fp32 whatever the model's dtype."""

    def __init__(
        self, head_dim: int, max_positions: int, theta: float, scaling: dict | None, device: torch.device | str
    ):
        super().__init__()
        angles = torch.outer(
            torch.arange(max_positions, dtype=torch.float32), inverse_frequencies(head_dim, theta, scaling)
        )
        self.cos_sin: torch.Tensor
        self.register_buffer('cos_sin', torch.cat([angles.cos(), angles.sin()], dim=-1).to(device), persistent=False)
