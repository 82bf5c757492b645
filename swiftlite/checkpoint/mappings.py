"""Upstream tensor layouts described as data, one `Mapping` a layout.

A rule ties one upstream module to the native modules its output rows hold, in row order. `{n}` stands for a layer
index. The same rules read base weights (`weight`, `bias`) and LoRA weights (`lora_A`, `lora_B`) in both directions.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Rule:
    source: str  # upstream module path
    targets: tuple[str, ...]  # native module paths; several = contiguous equal chunks of the output rows


@dataclass(frozen=True)
class Key:
    native: str
    sources: tuple[str, ...]  # upstream config keys, first present wins
    divide: int = 1
    default: Any = None


@dataclass(frozen=True)
class Mapping:
    architecture: str  # upstream architectures[0]
    model_type: str  # upstream model_type
    native: str  # architecture the tensors are mapped to
    native_type: str
    keys: tuple[Key, ...]
    constants: tuple[tuple[str, object], ...]
    keep: tuple[str, ...]  # upstream keys the native config carries on
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...]  # regular expressions of buffers that carry nothing

    def to_native(self, name: str) -> tuple[str, ...] | None:
        """Native names of an upstream tensor, () for an ignored buffer, None for a name the layout does not have."""
        if any(re.fullmatch(pattern, name) for pattern in self.ignored):
            return ()
        module, _, leaf = name.rpartition('.')
        targets = self.modules(module)
        return None if targets is None else tuple(f'{target}.{leaf}' for target in targets)

    def modules(self, module: str) -> tuple[str, ...] | None:
        """Native module paths whose rows the upstream module holds, None if the layout has no such module."""
        for pattern, targets in self._sources:
            if match := pattern.fullmatch(module):
                layer = match.group(1) if match.groups() else ''
                return tuple(target.replace('{n}', layer) for target in targets)
        return None

    @cached_property
    def _sources(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(re.compile(re.escape(rule.source).replace(r'\{n\}', r'(\d+)')), rule.targets) for rule in self.rules]

    def upstream(self, module: str) -> tuple[str, int, int] | None:
        """(upstream module, index of the row chunk, number of chunks) of a native module path."""
        for rule in self.rules:
            for index, target in enumerate(rule.targets):
                if match := re.fullmatch(re.escape(target).replace(r'\{n\}', r'(\d+)'), module):
                    layer = match.group(1) if match.groups() else ''
                    return rule.source.replace('{n}', layer), index, len(rule.targets)
        return None


# Qwen-7B and its siblings: fused q|k|v with bias, mlp = c_proj(w1(x) * silu(w2(x))), intermediate_size = both halves.
# The native config stops at seq_length: beyond it the upstream code turns on dynamic NTK and log-n attention.
QWEN_V1 = Mapping(
    architecture='QWenLMHeadModel',
    model_type='qwen',
    native='Qwen2ForCausalLM',
    native_type='qwen2',
    keys=(
        Key('hidden_size', ('hidden_size', 'n_embd')),
        Key('intermediate_size', ('intermediate_size', 'ffn_hidden_size'), divide=2),
        Key('num_hidden_layers', ('num_hidden_layers', 'n_layer')),
        Key('num_attention_heads', ('num_attention_heads', 'n_head')),
        Key('num_key_value_heads', ('num_attention_heads', 'n_head')),
        Key('head_dim', ('kv_channels',)),
        Key('vocab_size', ('padded_vocab_size', 'vocab_size')),
        Key('max_position_embeddings', ('seq_length', 'n_positions', 'max_position_embeddings')),
        Key('rms_norm_eps', ('layer_norm_epsilon',), default=1e-6),
        Key('rope_theta', ('rotary_emb_base',), default=10000.0),
        Key('initializer_range', ('initializer_range',), default=0.02),
        Key('eos_token_id', ('eos_token_id',), default=151643),
        Key('pad_token_id', ('pad_token_id',), default=151643),
    ),
    constants=(('hidden_act', 'silu'), ('use_sliding_window', False), ('tie_word_embeddings', False)),
    keep=('seq_length', 'use_dynamic_ntk', 'use_logn_attn'),
    rules=(
        Rule('transformer.wte', ('model.embed_tokens',)),
        Rule('transformer.h.{n}.ln_1', ('model.layers.{n}.input_layernorm',)),
        Rule(
            'transformer.h.{n}.attn.c_attn',
            (
                'model.layers.{n}.self_attn.q_proj',
                'model.layers.{n}.self_attn.k_proj',
                'model.layers.{n}.self_attn.v_proj',
            ),
        ),
        Rule('transformer.h.{n}.attn.c_proj', ('model.layers.{n}.self_attn.o_proj',)),
        Rule('transformer.h.{n}.ln_2', ('model.layers.{n}.post_attention_layernorm',)),
        Rule('transformer.h.{n}.mlp.w1', ('model.layers.{n}.mlp.up_proj',)),
        Rule('transformer.h.{n}.mlp.w2', ('model.layers.{n}.mlp.gate_proj',)),
        Rule('transformer.h.{n}.mlp.c_proj', ('model.layers.{n}.mlp.down_proj',)),
        Rule('transformer.ln_f', ('model.norm',)),
        Rule('lm_head', ('lm_head',)),
    ),
    ignored=(
        r'transformer\.rotary_emb\..*',
        r'transformer\.h\.\d+\.attn\.(masked_bias|bias|logn_tensor|rotary_emb\..*)',
    ),
)

MAPPINGS: dict[str, Mapping] = {'qwen_v1': QWEN_V1}


def mapping_of(config: dict) -> Mapping | None:
    """The mapping a raw `config.json` needs, None for a native layout."""
    architecture = (config.get('architectures') or [None])[0]
    for mapping in MAPPINGS.values():
        if architecture == mapping.architecture or (
            architecture is None and config.get('model_type') == mapping.model_type
        ):
            return mapping
    return None
