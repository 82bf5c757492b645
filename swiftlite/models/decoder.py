"""The pre-norm decoder that Llama-like families share; a DecoderConfig says how they differ."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from swiftlite_kernels.activation import silu_and_mul
from swiftlite_kernels.gemv import gemv
from swiftlite_kernels.paged_lora import Expansion, expand_silu_and_mul

from ..layers.attention import Attention
from ..layers.context import current_step
from ..layers.embedding import VocabEmbedding
from ..layers.linear import ColumnParallelLinear, Linear, QKVParallelLinear, RowParallelLinear
from ..layers.norm import RMSNorm
from ..layers.parallel import TPGroup
from ..layers.rotary import RotaryEmbedding
from ..layers.target import Target
from .config import DecoderConfig


class SelfAttention(nn.Module):
    def __init__(
        self,
        prefix: str,
        config: DecoderConfig,
        layer: int,
        rotary: RotaryEmbedding,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        super().__init__()
        c = config
        self.prefix = prefix
        self.qkv = QKVParallelLinear(
            prefix, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.qkv_bias, tp, dtype, device
        )
        self.o = RowParallelLinear(
            prefix, 'o_proj', c.num_heads * c.head_dim, c.hidden_size, c.o_bias, tp, dtype, device
        )
        norms = None
        if c.qk_norm:
            norms = (
                RMSNorm(f'{prefix}.q_norm', c.head_dim, c.rms_norm_eps, dtype, device),
                RMSNorm(f'{prefix}.k_norm', c.head_dim, c.rms_norm_eps, dtype, device),
            )
        self.attention = Attention(
            self.qkv.num_heads, self.qkv.num_kv_heads, c.head_dim, c.sliding_windows[layer], rotary, norms, device
        )

    def forward(
        self, positions: torch.Tensor, x: torch.Tensor, rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Expansion | None]:
        """The branch's output, and what is to be added to it (Linear.project)."""
        qkv, lora = self.qkv.project(x, with_bias=False)
        return self.o.project(self.attention(positions, qkv, self.qkv.bias, rows, lora))

    def kv_scales(self) -> dict[str, tuple[str, ...]]:
        """Names under which checkpoints keep factors of an fp8 cache → which of the attention's they are."""
        out: dict[str, tuple[str, ...]] = {f'{self.prefix}.kv_scale': ('k_scale', 'v_scale')}
        for x in 'kv':
            for name in (f'{x}_scale', f'attn.{x}_scale', f'{x}_proj.{x}_scale', f'{x}_proj.output_scale'):
                out[f'{self.prefix}.{name}'] = (f'{x}_scale',)
        return out


class MLP(nn.Module):
    def __init__(self, prefix: str, config: DecoderConfig, tp: TPGroup, dtype: torch.dtype, device: torch.device | str):
        super().__init__()
        c = config
        self.gate_up = ColumnParallelLinear(
            prefix,
            c.hidden_size,
            {'gate_proj': c.intermediate_size, 'up_proj': c.intermediate_size},
            c.mlp_bias,
            tp,
            dtype,
            device,
        )
        self.down = RowParallelLinear(
            prefix, 'down_proj', c.intermediate_size, c.hidden_size, c.mlp_bias, tp, dtype, device
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Expansion | None]:
        """The branch's output, and what is to be added to it (Linear.project)."""
        gate_up, lora = self.gate_up.project(x)
        out = torch.empty(x.shape[0], self.down.in_features, dtype=x.dtype, device=x.device)
        if lora is not None:
            expand_silu_and_mul(out, gate_up, lora.shrunk, lora.b, lora.routing)
        else:
            silu_and_mul(out, gate_up)
        return self.down.project(out)


class DecoderLayer(nn.Module):
    def __init__(
        self,
        prefix: str,
        config: DecoderConfig,
        layer: int,
        rotary: RotaryEmbedding,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        super().__init__()
        self.input_norm = RMSNorm(f'{prefix}.input_layernorm', config.hidden_size, config.rms_norm_eps, dtype, device)
        self.attention = SelfAttention(f'{prefix}.self_attn', config, layer, rotary, tp, dtype, device)
        self.post_norm = RMSNorm(
            f'{prefix}.post_attention_layernorm', config.hidden_size, config.rms_norm_eps, dtype, device
        )
        self.mlp = MLP(f'{prefix}.mlp', config, tp, dtype, device)

    def forward(
        self,
        positions: torch.Tensor,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        lora: Expansion | None = None,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, Expansion | None]:
        """x: the last branch's output, lora: what is to be added to it, residual: the stream before (at first None).

        rows: the tokens whose output is wanted; the others only leave their keys and values.
        """
        if residual is None:
            x, residual = self.input_norm(x), x
        else:
            x, residual = self.input_norm.add_norm(x, residual, lora)
        x, lora = self.attention(positions, x, rows)
        if rows is not None:
            residual = residual[rows]
        x, residual = self.post_norm.add_norm(x, residual, lora)
        x, lora = self.mlp(x)
        return x, residual, lora

    def forward_row(self, positions: torch.Tensor, x: torch.Tensor) -> None:
        """The layer for a single token, in place in the stream x [1, hidden]: each product does what lies around it."""
        qkv, o, gate_up, down = self.attention.qkv, self.attention.o, self.mlp.gate_up, self.mlp.down
        norm = self.input_norm
        projected = x.new_empty(1, qkv.weight.shape[0])
        adapter = qkv.adapters(x, norm.weight)
        gemv(projected, x, qkv.weight, qkv.bias, None, norm.weight, norm.eps, lora=adapter)
        attended = self.attention.attention(positions, projected, None)
        gemv(x, attended, o.weight, o.bias, x, lora=o.adapters(attended))
        norm = self.post_norm
        active = x.new_empty(1, down.in_features)
        adapter = gate_up.adapters(x, norm.weight)
        gemv(active, x, gate_up.weight, gate_up.bias, None, norm.weight, norm.eps, True, adapter)
        gemv(x, active, down.weight, down.bias, x, lora=down.adapters(active))


class Decoder(nn.Module):
    """Token ids → hidden states → logits, reading and writing the paged KV cache of the running step."""

    def __init__(
        self, config: DecoderConfig, max_model_len: int, tp: TPGroup, dtype: torch.dtype, device: torch.device | str
    ):
        super().__init__()
        self.config = config
        # a single row reads each weight once: a product of our own, fused with its neighbours, beats the library's
        self.rows_alone = tp.size == 1 and torch.device(device).type == 'cuda'
        self.embed = VocabEmbedding('model.embed_tokens', config.vocab_size, config.hidden_size, tp, dtype, device)
        rotary = RotaryEmbedding(config.head_dim, max_model_len, config.rope_theta, config.rope_scaling, device)
        self.layers = nn.ModuleList(
            DecoderLayer(f'model.layers.{i}', config, i, rotary, tp, dtype, device) for i in range(config.num_layers)
        )
        self.norm = RMSNorm('model.norm', config.hidden_size, config.rms_norm_eps, dtype, device)
        self.head = (
            self.embed
            if config.tie_word_embeddings
            else VocabEmbedding('lm_head', config.vocab_size, config.hidden_size, tp, dtype, device)
        )

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """input_ids, positions [T] int64 → normalised hidden states [T, hidden], or of the context's rows only."""
        x, residual, lora = self.embed(input_ids), None, None
        rows = current_step().rows
        if x.shape[0] == 1 and self.rows_alone:
            for layer in self.layers:
                layer.forward_row(positions, x)
            return self.norm(x)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x, residual, lora = layer(positions, x, residual, lora, rows if i == last else None)
        assert residual is not None
        return self.norm.add_norm(x, residual, lora)[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [R, hidden] → [R, vocab]."""
        return self.head.logits(hidden)

    def linears(self) -> Iterator[Linear]:
        """Every layer that an adapter may target."""
        return (m for m in self.modules() if isinstance(m, Linear))

    def attentions(self) -> Iterator[Attention]:
        """Every layer that owns a KV cache, in order."""
        return (m for m in self.modules() if isinstance(m, Attention))

    def set_kv_scale(self, name: str, value: torch.Tensor) -> bool:
        """Take a factor of an fp8 cache by its checkpoint name; False when it is none, ValueError when it is bad."""
        for layer in self.layers:
            names = layer.attention.kv_scales().get(name, ())
            for x in names:
                layer.attention.attention.set_scale(x, value)
            if names:
                return True
        return False

    def targets(self) -> dict[str, Target]:
        """Every tensor this network reads, by checkpoint name."""
        out: dict[str, Target] = {}
        for module in self.modules():
            if isinstance(module, (Linear, RMSNorm, VocabEmbedding)):
                out.update(module.targets())
        return out
