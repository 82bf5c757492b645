"""What the engine needs to know about a network, read from a checkpoint's config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import SwiftliteError
from ..registry.families import Family


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm decoder with rotary positions, grouped-query attention and a gated MLP."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict | None
    max_position: int
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_windows: tuple[int | None, ...]  # a layer each
    dtype: str
    eos_token_ids: tuple[int, ...]

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Linear layer name → (in, out) of the whole model, unsharded."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        h, i = self.hidden_size, self.intermediate_size
        return {
            'q_proj': (h, q),
            'k_proj': (h, kv),
            'v_proj': (h, kv),
            'o_proj': (q, h),
            'gate_proj': (h, i),
            'up_proj': (h, i),
            'down_proj': (i, h),
        }


def decoder_config(config: dict[str, Any], family: Family) -> DecoderConfig:
    """From a normalised config.json (checkpoint.read_config) and the family's traits; SwiftliteError if unsupported."""
    act = config.get('hidden_act', 'silu')
    if act != 'silu':
        raise SwiftliteError(f"hidden_act '{act}' is not supported by the engine; supported: silu.")
    heads = config['num_attention_heads']
    layers = config['num_hidden_layers']
    window: int | None = None
    if config.get('sliding_window') and config.get('use_sliding_window', True):
        window = int(config['sliding_window'])
    kinds = config.get('layer_types')
    if kinds:
        windows = tuple(window if kind == 'sliding_attention' else None for kind in kinds)
    else:
        first = config.get('max_window_layers', 0) if window else 0
        windows = tuple(window if i >= first else None for i in range(layers))
    eos = config.get('eos_token_id')
    eos = eos if isinstance(eos, (list, tuple)) else [] if eos is None else [eos]
    return DecoderConfig(
        vocab_size=config['vocab_size'],
        hidden_size=config['hidden_size'],
        intermediate_size=config['intermediate_size'],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=config.get('num_key_value_heads') or heads,
        head_dim=config.get('head_dim') or config['hidden_size'] // heads,
        rms_norm_eps=config.get('rms_norm_eps', 1e-6),
        rope_theta=float(config.get('rope_theta', 10000.0)),
        rope_scaling=config.get('rope_scaling'),
        max_position=config.get('max_position_embeddings', 2048),
        tie_word_embeddings=bool(config.get('tie_word_embeddings')),
        qkv_bias=config.get('attention_bias', family.qkv_bias),
        o_bias=family.o_bias,
        mlp_bias=family.mlp_bias,
        qk_norm=family.qk_norm,
        sliding_windows=windows,
        dtype=str(config.get('dtype') or config.get('torch_dtype') or 'float32'),
        eos_token_ids=tuple(eos),
    )
