"""Names and argument order are a contract with users of vLLM's kernels: a change here is a breaking change."""

import inspect
from importlib import import_module

import pytest

SIGNATURES = {
    'norm.rms_norm': 'out, input, weight, epsilon',
    'norm.fused_add_rms_norm': 'input, residual, weight, epsilon, lora=None',
    'rotary.rotary_embedding':
        'positions, query, key, head_size, cos_sin_cache, is_neox, rope_dim_offset=0, inverse=False',
    'rotary.rotary_and_cache':
        'qkv, bias, query_weight, key_weight, epsilon, positions, head_size, cos_sin_cache, is_neox, key_cache, '
        'value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale, lora=None',
    'activation.silu_and_mul': 'out, input',
    'activation.mul_and_silu': 'out, input',
    'activation.gelu_and_mul': 'out, input',
    'activation.gelu_tanh_and_mul': 'out, input',
    'cache.reshape_and_cache_flash':
        'key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale',
    'cache.reshape_and_cache':
        'key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale',
    'cache.swap_blocks': 'src, dst, block_size_in_bytes, block_mapping',
    'quant.scaled_fp8_quant':
        'input, scale=None, num_token_padding=None, scale_ub=None, use_per_token_if_dynamic=False, output=None, '
        'group_shape=None',
    'attention.unified_attention':
        'q, k, v, out, cu_seqlens_q, max_seqlen_q, seqused_k, max_seqlen_k, softmax_scale, causal, window_size, '
        'block_table, softcap, q_descale, k_descale, v_descale, seq_threshold_3D=None, num_par_softmax_segments=None, '
        'softmax_segm_output=None, softmax_segm_max=None, softmax_segm_expsum=None, alibi_slopes=None, '
        'output_scale=None, qq_bias=None, sinks=None, mm_prefix_range=None, use_alibi_sqrt=False, kv_quant_mode=0, '
        'k_scale_cache=None, v_scale_cache=None, chunk_lookback=-1, use_td=False, shared_prefix=None',
    'attention.merge_attn_states':
        'output, prefix_output, prefix_lse, suffix_output, suffix_lse, output_lse=None, '
        'prefill_tokens_with_context=None, output_scale=None',
    'paged_attention.paged_attention_v1':
        'out, query, key_cache, value_cache, num_kv_heads, scale, block_tables, seq_lens, block_size, max_seq_len, '
        'alibi_slopes, kv_cache_dtype, k_scale, v_scale, tp_rank=0, blocksparse_local_blocks=0, '
        'blocksparse_vert_stride=0, blocksparse_block_size=64, blocksparse_head_sliding_step=0',
    'paged_attention.paged_attention_v2':
        'out, exp_sum, max_logits, tmp_out, query, key_cache, value_cache, num_kv_heads, scale, block_tables, '
        'seq_lens, block_size, max_seq_len, alibi_slopes, kv_cache_dtype, k_scale, v_scale, tp_rank=0, '
        'blocksparse_local_blocks=0, blocksparse_vert_stride=0, blocksparse_block_size=64, '
        'blocksparse_head_sliding_step=0',
    'paged_attention.decode_attention_fwd':
        'q, k_buffer, v_buffer, o, lse, req_to_token, b_seq_len, attn_logits, num_kv_splits, sm_scale, page_size=1, '
        'logit_cap=0.0, k_scale=None, v_scale=None, is_mla=False',
    'prefix_prefill.context_attention_fwd':
        'q, k, v, o, kv_cache_dtype, k_cache, v_cache, b_loc, b_start_loc, b_seq_len, max_seq_len, max_input_len, '
        'k_scale, v_scale, alibi_slopes=None, sliding_window=None, sm_scale=None, skip_decode=False, '
        'fp8_out_scale=None, sinks=None, is_block_table_ptr=False',
    'triton_prefill_attention.context_attention_fwd':
        'q, k, v, o, b_start_loc, b_seq_len, max_input_len, is_causal=True, softmax_scale=None, '
        'sliding_window_q=None, sliding_window_k=None',
    'gemv.gemv':
        'out, x, weight, bias=None, residual=None, norm_weight=None, epsilon=1e-06, gated=False, '
        'lora=None',
    'lora.lora_shrink':
        'inputs, lora_a_weights, output_tensor, token_lora_mapping, token_indices_sorted_by_lora_ids, '
        'num_tokens_per_lora, lora_token_start_loc, lora_ids, no_lora_flag_cpu, num_active_loras, scaling',
    'lora.lora_expand':
        'inputs, lora_b_weights, output_tensor, token_lora_mapping, token_indices_sorted_by_lora_ids, '
        'num_tokens_per_lora, lora_token_start_loc, lora_ids, no_lora_flag_cpu, num_active_loras, offset_start=0, '
        'add_inputs=False',
    'paged_lora.shrink': 'x, a, routing, norm_weight=None',
    'paged_lora.expand': 'y, shrunk, b, widths, routing',
    'paged_lora.expand_silu_and_mul': 'out, y, shrunk, b, routing',
    'residual_norm.add_rms_norm': 'out, total, input, residual, weight, epsilon',
    'residual_norm.rms_norm_backward':
        'grad_input, grad_weight, grad_out, grad_residual, input, weight, epsilon',
    'rope.rotate_query_key': 'query_out, key_out, query, key, cos, sin, inverse=False',
    'swiglu.swiglu': 'out, gate, up, to_gate=None, to_up=None',
    'swiglu.swiglu_backward': 'gate, up, grad_out, output=True, to_gate=None, to_up=None, to_grad=None',
    'cross_entropy.cross_entropy':
        'losses, correct, logits, targets, weights=None, softcap=0.0, ignore_index=-100, gradient=True',
    'lora_dropout.dropout_shrink': 'x, a, p, seed',
    'lora_dropout.dropout_shrink_backward': 'grad, x, a, p, seed, grad_x',
    'sampling.sample': 'logits, temperature, top_k, top_p, min_p, seeds, positions',
    'sampling.philox_uniform': 'seeds, positions, vocab',
    'sampling.apply_repetition_penalties': 'logits, prompt_mask, output_mask, repetition_penalties',
}
FAMILIES = [
    'activation', 'attention', 'cache', 'cross_entropy', 'gemv', 'lora', 'lora_dropout', 'norm', 'paged_attention',
    'paged_lora', 'prefix_prefill', 'quant', 'residual_norm', 'rope', 'rotary', 'sampling', 'swiglu',
    'triton_prefill_attention',
]


@pytest.mark.parametrize('name', SIGNATURES)
def test_frozen(name):
    family, op = name.split('.')
    parameters = inspect.signature(getattr(import_module(f'swiftlite_kernels.{family}'), op)).parameters.values()
    shown = [p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in parameters]
    assert ', '.join(shown) == SIGNATURES[name]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_op_is_listed_and_has_a_reference(family):
    module = import_module(f'swiftlite_kernels.{family}')
    ops = [name for name in module.__all__ if inspect.isfunction(getattr(module, name))]
    assert sorted(ops) == sorted(name.split('.')[1] for name in SIGNATURES if name.startswith(f'{family}.'))
    reference = import_module(f'swiftlite_kernels.{family}.reference')
    assert all(callable(getattr(reference, op)) for op in ops)
