"""Puts the training kernels into transformers' decoder layers.

Each module of a layer becomes an instance of a subclass of its own class, with the same name and another forward pass:
checkpointing, hooks, sharding and peft see the modules they know. What a forward pass does not cover (a cache, a tuner
that adds more than a LoRA, weights that are trained) takes the module's own way.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from swiftlite.train.model import fused, fused_lora
from swiftlite.train.model.fused_lora import plain
from swiftlite.train.model.loss import output_layer

# decoder layers of this shape: norm, attention, add, norm, SwiGLU, add
LAYERS = ('Qwen2DecoderLayer', 'Qwen3DecoderLayer', 'LlamaDecoderLayer', 'MistralDecoderLayer')
ACTIVATIONS = ('silu', 'swish')


def install_kernels(model: nn.Module) -> list[str]:
    """Let the decoder layers of a transformers model, under peft or not, run on the kernels of swiftlite_kernels.

    The loss of its output layer, too (see train.loss). It may be done before or after adapters are added. Returns what
    is left as it was, a line each: an empty list for a model of which all is covered.
    """
    output_layer(model).fused_loss = True  # type: ignore[assignment]
    layers = [module for module in model.modules() if type(module).__name__ in LAYERS]
    if not layers:
        return [f'{type(model).__name__}: its decoder layers are none of {", ".join(LAYERS)}']
    missing: dict[str, None] = {}
    for layer in layers:
        activation = str(layer.self_attn.config.hidden_act)
        if activation in ACTIVATIONS:
            specialise(layer.mlp, mlp_forward)
        else:
            missing[f'{type(layer.mlp).__name__}: its activation is {activation}, not silu'] = None
        specialise(layer.self_attn, attention_forward)
        specialise(layer, layer_forward)
    names = {type(module).__name__.replace('DecoderLayer', 'RMSNorm') for module in layers}
    for module in model.modules():
        if type(module).__name__ in names:
            specialise(module, norm_forward)
    return list(missing)


def specialise(module: nn.Module, forward: Callable[..., Any]) -> None:
    module.__class__ = subclass(type(module), forward)  # type: ignore[arg-type]


@cache
def subclass(cls: type, forward: Callable[..., Any]) -> type:
    """A class of the same name whose forward is `forward(original, self, ...)`."""
    original = cls.forward  # type: ignore[attr-defined]

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(original, self, *args, **kwargs)

    if getattr(cls, 'runs', None) is forward:
        return cls
    return type(cls.__name__, (cls,), {'forward': run, 'runs': staticmethod(forward), '__module__': cls.__module__})


def norm_forward(original: Callable[..., Any], self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    return fused.rms_norm(hidden_states, self)[0]


def layer_forward(original: Callable[..., Any], self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """The residual stream, each addition together with the norm behind it."""
    before, between = self.input_layernorm, self.post_attention_layernorm
    if not (plain(before) and plain(between)):
        return original(self, hidden_states, **kwargs)
    normed, residual = fused.rms_norm(hidden_states, before)
    attended, _ = self.self_attn(hidden_states=normed, **kwargs)
    normed, residual = fused.add_rms_norm(attended, residual, between)
    return residual + self.mlp(normed)


def attention_forward(
    original: Callable[..., Any],
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if past_key_values is not None or position_embeddings is None:
        return original(
            self,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    outs = linear(hidden_states, (self.q_proj, self.k_proj, self.v_proj))
    query, key, value = (x.view(shape) for x in outs)  # [B, S, heads, head_dim]
    if hasattr(self, 'q_norm'):
        query, key = self.q_norm(query), self.k_norm(key)
    query, key = fused.Rotary.apply(query, key, *position_embeddings)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    window = self.sliding_window if hasattr(self, 'sliding_window') else getattr(self.config, 'sliding_window', None)
    eager = sys.modules[type(self).__module__].eager_attention_forward  # type: ignore[attr-defined]
    attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation, eager)
    attended, weights = attend(
        self,
        query,
        key,
        value,
        attention_mask,
        dropout=self.attention_dropout if self.training else 0.0,
        scaling=self.scaling,
        sliding_window=window,
        **kwargs,
    )
    (out,) = linear(attended.reshape(*hidden_states.shape[:-1], -1), (self.o_proj,))
    return out, weights


def mlp_forward(original: Callable[..., Any], self: Any, x: torch.Tensor) -> torch.Tensor:
    dtype = fused.compute_dtype(x)
    outer = fused_lora.frozen_layers((self.gate_proj, self.up_proj), dtype)
    down = fused_lora.frozen_linear(self.down_proj, dtype)
    if outer is not None and down is not None:
        gate, up = outer
        return fused_lora.mlp(x.to(dtype), gate, up, down)
    return linear(fused.SwiGLU.apply(*linear(x, (self.gate_proj, self.up_proj))), (self.down_proj,))[0]


def linear(x: torch.Tensor, modules: Sequence[nn.Module]) -> Sequence[torch.Tensor]:
    """x through each of the layers: together where they are frozen with a LoRA, else one after the other."""
    dtype = fused.compute_dtype(x)
    layers = fused_lora.frozen_layers(modules, dtype)
    return [module(x) for module in modules] if layers is None else fused_lora.project(x.to(dtype), layers)
