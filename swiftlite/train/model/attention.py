"""Attention of rows that lie end to end in a batch: each sees itself alone.

Registered with transformers as one of its attention implementations. A batch says once where its rows end, in
`cu_seqlens` and `lengths`, which transformers hands through to every layer. Without them this is transformers' own
attention, so that text can be generated from the model while it is trained.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from swiftlite.errors import SwiftliteError

NAME = 'swiftlite'
# the fastest for long rows on Hopper first; torch takes the first that can
BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
PLANNED = 256  # tokens: cuDNN plans each length anew, so it gets multiples of this only
NEEDS_GQA = 'enable_gqa' in inspect.signature(varlen_attn).parameters  # older ones take fewer key heads unasked


def install_attention(model: Any) -> None:
    """Let a transformers causal LM take rows end to end.

    Raises:
        SwiftliteError: its attention is one that is not computed here.
    """
    config = model.config
    for name in ('attn_logit_softcapping', 'attention_chunk_size'):
        if getattr(config, name, None):
            raise SwiftliteError(f"training a model whose attention has '{name}' is not supported")
    rope = (getattr(config, 'rope_parameters', None) or {}).get('rope_type')
    if rope in ('dynamic', 'longrope'):  # the longest row of a batch would change what the others are
        raise SwiftliteError(f"training a model with rope_type '{rope}' is not supported")
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seqlens: torch.Tensor | None = None,
    lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention [1, T, heads, d] of query [1, heads, T, d], key and value [1, kv_heads, T, d], row by row.

    cu_seqlens [rows + 1] int32: where rows begin, then T. lengths: of the rows. `attention_mask` plays no part then.
    """
    if cu_seqlens is None or lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **kwargs
        )
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    longest = max(lengths)
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    if dropout or not fits_varlen(query):
        return by_row(query, key, value, lengths, scaling, dropout, window), None
    if window is None and longest % PLANNED == 0 and min(lengths) == longest:
        return alike(query, key, value, len(lengths), scaling), None
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, heads, d]
    sides = (-1 if window is None else window - 1, 0)
    grouped = {'enable_gqa': True} if NEEDS_GQA else {}
    out = varlen_attn(
        query, key, value, cu_seqlens, cu_seqlens, longest, longest, scale=scaling, window_size=sides, **grouped
    )
    return out[None], None


def fits_varlen(query: torch.Tensor) -> bool:
    """Whether torch's variable-length kernel takes it: FlashAttention-2 (arXiv 2307.08691), from Ampere on."""
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    size = query.shape[-1]
    return size % 8 == 0 and size <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def alike(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: int, scaling: float | None
) -> torch.Tensor:
    """Rows of one length, as a batch of them: [1, T, heads, d]."""
    q, k, v = (x[0].transpose(0, 1).unflatten(0, (rows, -1)).transpose(1, 2) for x in (query, key, value))
    with sdpa_kernel(BACKENDS, set_priority=True):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).reshape(1, -1, *out.shape[1::2])


def by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """One row after the other, in any dtype: [1, T, heads, d]."""
    parts = []
    for q, k, v in zip(*(x.split(list(lengths), dim=2) for x in (query, key, value)), strict=True):
        seen = None if window is None or q.shape[2] <= window else window_mask(q.shape[2], window, q.device)
        part = F.scaled_dot_product_attention(
            q, k, v, seen, dropout, is_causal=seen is None, scale=scaling, enable_gqa=True
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1)


def window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """[length, length]: a token sees itself and the `window - 1` before it."""
    token = torch.arange(length, device=device)
    back = token[:, None] - token
    return (back >= 0) & (back < window)
