"""Rotary position embedding of a training batch in torch."""

import torch


def rotate_query_key(
    query_out: torch.Tensor,
    key_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    inverse: bool = False,
) -> None:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    half = query.shape[-1] // 2
    cos, sin = (x[..., None, :half].to(dtype) for x in (cos, sin))  # [B or 1, S, 1, head_size / 2]
    if inverse:
        sin = -sin
    for out, x in ((query_out, query), (key_out, key)):
        a, b = x.to(dtype).split(half, -1)
        out.copy_(torch.cat([a * cos - b * sin, b * cos + a * sin], -1))
