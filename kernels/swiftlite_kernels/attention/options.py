"""Arguments of vLLM's unified_attention that this one refuses."""

from typing import Any


def check_options(
    q_descale: Any,
    qq_bias: Any,
    mm_prefix_range: Any,
    kv_quant_mode: Any,
    k_scale_cache: Any,
    v_scale_cache: Any,
    chunk_lookback: int,
) -> None:
    """Raise ValueError for an argument that would change the result and is not honoured."""
    given = {
        'q_descale': q_descale is not None,
        'qq_bias': qq_bias is not None,
        'mm_prefix_range': mm_prefix_range is not None,
        'kv_quant_mode': int(kv_quant_mode) != 0,
        'k_scale_cache': k_scale_cache is not None,
        'v_scale_cache': v_scale_cache is not None,
        'chunk_lookback': chunk_lookback != -1,
    }
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f'unified_attention: {name} is not supported; leave it at its default')
