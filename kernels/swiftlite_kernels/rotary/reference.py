"""Rotary position embedding in torch."""

import torch


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
    rope_dim_offset: int = 0,
    inverse: bool = False,
) -> None:
    rot_dim = cos_sin_cache.shape[-1]
    cos, sin = cos_sin_cache[positions].float().unsqueeze(-2).chunk(2, dim=-1)  # [*positions, 1, rot_dim/2]
    if inverse:
        sin = -sin
    for x in (query, key):
        if x is None:
            continue
        heads = x.unflatten(-1, (-1, head_size)) if x.dim() == positions.dim() + 1 else x
        part = heads[..., rope_dim_offset : rope_dim_offset + rot_dim]
        if is_neox:
            first, second = part[..., : rot_dim // 2], part[..., rot_dim // 2 :]
        else:
            first, second = part[..., 0::2], part[..., 1::2]
        a, b = first.float(), second.float()
        turned = a * cos - b * sin, b * cos + a * sin
        first.copy_(turned[0])
        second.copy_(turned[1])
