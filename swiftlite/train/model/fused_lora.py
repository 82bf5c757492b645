"""Frozen linear layers with LoRA, several over one input, and the MLP of a decoder (arXiv 2106.09685).

y = x Wᵀ + b + s · dropout(x) Aᵀ Bᵀ. Kept for the backward pass are x and the narrow products dropout(x) Aᵀ alone; of
the MLP also its gate and up, over which the backward pass writes. Layers over one input share their narrow product,
one gradient of it, and one mask of dropout. Products are in x's dtype, with A and B rounded to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from swiftlite.train.model.fused import Gradients, once, rows_of
from swiftlite_kernels import lora_dropout, swiglu
from swiftlite_kernels.swiglu import LowRank


@dataclass(frozen=True)
class Projection:
    """A frozen linear layer [out, in] and its adapter: A [rank, in], B [out, rank] or None, s · B A is added."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    scale: float = 0.0
    dropout: float = 0.0

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.weight, self.bias, self.a, self.b


PER_LAYER = 4  # tensors of a Projection


@dataclass(frozen=True)
class Shared:
    """What layers over one input have besides their tensors."""

    scales: tuple[float, ...]
    dropout: float  # 0 outside training
    seed: int

    @classmethod
    def of(cls, layers: Sequence[Projection], seed: int = 0) -> 'Shared':
        return cls(tuple(layer.scale for layer in layers), max(layer.dropout for layer in layers), seed)

    def layers(self, tensors: Sequence[torch.Tensor | None]) -> list[Projection]:
        groups = [tensors[i : i + PER_LAYER] for i in range(0, len(tensors), PER_LAYER)]
        return [Projection(w, bias, a, b, scale) for (w, bias, a, b), scale in zip(groups, self.scales, strict=True)]  # type: ignore[arg-type]


def narrow_weights(layers: Sequence[Projection], dtype: torch.dtype) -> torch.Tensor | None:
    """The As of the layers that have one, below one another: [ranks, in]."""
    found = [layer.a.to(dtype) for layer in layers if layer.a is not None]
    if not found:
        return None
    return found[0].contiguous() if len(found) == 1 else torch.cat(found)


def shrink(x: torch.Tensor, a: torch.Tensor | None, shared: Shared) -> torch.Tensor | None:
    """dropout(x) Aᵀ: [rows, ranks]."""
    if a is None:
        return None
    return lora_dropout.dropout_shrink(x, a, shared.dropout, shared.seed) if shared.dropout else x @ a.T


def ranks(layers: Sequence[Projection]) -> list[slice | None]:
    """Which of the narrow columns are whose."""
    found: list[slice | None] = []
    start = 0
    for layer in layers:
        rank = 0 if layer.a is None else layer.a.shape[0]
        found.append(slice(start, start + rank) if rank else None)
        start += rank
    return found


def expand(x: torch.Tensor, narrow: torch.Tensor | None, layers: Sequence[Projection]) -> list[torch.Tensor]:
    """The outputs [rows, out] of the layers."""
    outs = []
    for layer, part in zip(layers, ranks(layers), strict=True):
        y = F.linear(x, layer.weight, layer.bias)
        if part is not None and narrow is not None and layer.b is not None:
            y.addmm_(narrow[:, part], layer.b.to(x.dtype).T, alpha=layer.scale)
        outs.append(y)
    return outs


def additions(narrow: torch.Tensor | None, layers: Sequence[Projection]) -> list[LowRank | None]:
    """What the adapters add to the outputs of the layers, for an op that adds it as it reads them."""
    return [
        None
        if part is None or narrow is None or layer.b is None
        else LowRank(narrow[:, part], layer.b.to(narrow.dtype), layer.scale)
        for layer, part in zip(layers, ranks(layers), strict=True)
    ]


@dataclass
class Slopes:
    """Gradients of a group of layers: of the input, and of each A and B."""

    x: torch.Tensor | None
    adapters: list[tuple[torch.Tensor | None, torch.Tensor | None]]

    def flat(self) -> Gradients:
        return tuple(g for a, b in self.adapters for g in (None, None, a, b))


def narrow_slopes(
    grads: Sequence[torch.Tensor], narrow: torch.Tensor | None, layers: Sequence[Projection]
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """(gradient of the narrow product [rows, ranks], gradient of each B)."""
    slopes: list[torch.Tensor] = []
    of_b: list[torch.Tensor | None] = []
    for grad, layer, part in zip(grads, layers, ranks(layers), strict=True):
        if part is None or layer.b is None or narrow is None:
            of_b.append(None)
            continue
        slopes.append((grad @ layer.b.to(grad.dtype)).mul_(layer.scale))
        of_b.append((grad.T @ narrow[:, part]).to(layer.b.dtype).mul_(layer.scale))
    if not slopes:
        return None, of_b
    return slopes[0] if len(slopes) == 1 else torch.cat(slopes, 1), of_b


def input_slope(grads: Sequence[torch.Tensor], layers: Sequence[Projection]) -> torch.Tensor:
    """Σ grad W: [rows, in]."""
    total = grads[0] @ layers[0].weight
    for grad, layer in zip(grads[1:], layers[1:], strict=True):
        total.addmm_(grad, layer.weight)
    return total


def group_slopes(
    grads: Sequence[torch.Tensor],
    x: torch.Tensor,
    narrow: torch.Tensor | None,
    layers: Sequence[Projection],
    shared: Shared,
    wanted: bool,
) -> Slopes:
    """Gradients of layers over x for those of their outputs; that of x only if it is wanted."""
    total = input_slope(grads, layers) if wanted else None
    slope, of_b = narrow_slopes(grads, narrow, layers)
    a = narrow_weights(layers, x.dtype)
    if slope is None or a is None:
        return Slopes(total, [(None, None)] * len(layers))
    if shared.dropout:
        of_a = lora_dropout.dropout_shrink_backward(slope, x, a, shared.dropout, shared.seed, total)
        assert of_a is not None
    else:
        of_a = slope.T @ x
        if total is not None:
            total.addmm_(slope, a)
    return Slopes(total, by_layer(of_a, of_b, layers))


def by_layer(
    of_a: torch.Tensor, of_b: Sequence[torch.Tensor | None], layers: Sequence[Projection]
) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
    parts = zip(layers, ranks(layers), of_b, strict=True)
    return [(None if part is None or layer.a is None else of_a[part].to(layer.a.dtype), b) for layer, part, b in parts]


class Projections(torch.autograd.Function):
    """Outputs of frozen layers with adapters over one input [rows, in]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shared: Shared, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        layers = shared.layers(tensors)
        narrow = shrink(x, narrow_weights(layers, x.dtype), shared)
        ctx.save_for_backward(x, narrow, *tensors)
        ctx.shared = shared
        return tuple(expand(x, narrow, layers))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:  # type: ignore[override]
        x, narrow, *tensors = ctx.saved_tensors
        found = [rows_of(grad) for grad in grads]
        slopes = group_slopes(found, x, narrow, ctx.shared.layers(tensors), ctx.shared, ctx.needs_input_grad[0])
        return slopes.x, None, *slopes.flat()


def project(x: torch.Tensor, layers: Sequence[Projection]) -> tuple[torch.Tensor, ...]:
    """x [..., in] through each of the layers, whose dropouts are equal or 0."""
    outs = Projections.apply(rows_of(x), Shared.of(layers, draw_seed(layers)), *tensors_of(layers))
    return tuple(y.view(*x.shape[:-1], -1) for y in outs)


class Inner(torch.autograd.Function):
    """The gate and up of an MLP [rows, in], with the gradients of the whole MLP.

    Returns its inner activation, the narrow product of the down layer with it, and a stand-in for the MLP's output:
    Down makes the output of the first two and hands the output's gradient back through the third. So a layer that is
    computed again for its backward pass (gradient checkpointing) stops here, before the down layer.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, shared: Shared, below: Shared, *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        layers, (down,) = shared.layers(tensors[:-PER_LAYER]), below.layers(tensors[-PER_LAYER:])
        narrow = shrink(x, narrow_weights(layers, x.dtype), shared)
        gate, up = (F.linear(x, layer.weight, layer.bias) for layer in layers)
        inner = torch.empty_like(gate)
        swiglu.swiglu(inner, gate, up, *additions(narrow, layers))
        narrow_inner = shrink(inner, narrow_weights([down], x.dtype), below)
        ctx.save_for_backward(x, narrow, gate, up, narrow_inner, *tensors)
        ctx.shared, ctx.below = shared, below
        ctx.mark_non_differentiable(inner, *([] if narrow_inner is None else [narrow_inner]))
        return inner, narrow_inner, x.new_empty(1).expand(x.shape[0], down.weight.shape[0])

    @staticmethod
    def backward(ctx: Any, _: Any, __: Any, grad: torch.Tensor) -> Gradients:  # type: ignore[override]
        once(ctx)
        x, narrow, gate, up, narrow_inner, *tensors = ctx.saved_tensors
        layers, (down,) = ctx.shared.layers(tensors[:-PER_LAYER]), ctx.below.layers(tensors[-PER_LAYER:])
        below, grad = ctx.below, rows_of(grad)
        slope, of_b = narrow_slopes([grad], narrow_inner, [down])
        a = narrow_weights([down], x.dtype)
        inner = grad @ down.weight
        to_inner = None
        if slope is not None and a is not None:
            to_inner = LowRank(slope, a.T, 1.0, below.dropout, below.seed)
        # gate and up become their gradients, inner the activation again
        to_gate, to_up = additions(narrow, layers)
        swiglu.swiglu_backward(gate, up, inner, True, to_gate, to_up, to_inner)
        found: list[tuple[torch.Tensor | None, torch.Tensor | None]] = [(None, None)]
        if slope is not None and a is not None:
            if below.dropout:
                of_a = lora_dropout.dropout_shrink_backward(slope, inner, a, below.dropout, below.seed, None)
                assert of_a is not None
            else:
                of_a = slope.T @ inner
            found = by_layer(of_a, of_b, [down])
        del inner
        slopes = group_slopes([gate, up], x, narrow, layers, ctx.shared, ctx.needs_input_grad[0])
        return slopes.x, None, None, *slopes.flat(), *Slopes(None, found).flat()


class Down(torch.autograd.Function):
    """The down layer of an MLP; see Inner, which has its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        stand_in: torch.Tensor,
        inner: torch.Tensor,
        narrow: torch.Tensor | None,
        below: Shared,
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        return expand(inner, narrow, below.layers(tensors))[0]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:  # type: ignore[override]
        return grad, None, None, None, *[None] * PER_LAYER


def mlp(x: torch.Tensor, gate: Projection, up: Projection, down: Projection) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)) for x [..., in]; dropouts of gate and up are equal or 0."""
    shared = Shared.of([gate, up], draw_seed([gate, up]))
    below = Shared.of([down], draw_seed([down]))
    inner, narrow, stand_in = Inner.apply(rows_of(x), shared, below, *tensors_of([gate, up, down]))
    frozen = [None if t is None else t.detach() for t in down.tensors()]
    return Down.apply(stand_in, inner, narrow, below, *frozen).view(*x.shape[:-1], -1)


def tensors_of(layers: Sequence[Projection]) -> list[torch.Tensor | None]:
    return [tensor for layer in layers for tensor in layer.tensors()]


def draw_seed(layers: Sequence[Projection]) -> int:
    """A seed of dropout from torch's generator of the CPU: checkpointing sets it back before it computes again."""
    if not any(layer.dropout for layer in layers):
        return 0
    return int(torch.randint(1 << 62, (), device='cpu'))


def plain(module: nn.Module) -> bool:
    """Whether calling the module is no more than its forward pass: no hooks, no sharded or quantized weight."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    if hooks or hasattr(module, '_hf_hook'):
        return False
    return all(type(p) in (torch.Tensor, nn.Parameter) and not hasattr(p, 'ds_id') for p in module._parameters.values()
               if p is not None)  # fmt: skip


def frozen_linear(module: nn.Module, dtype: torch.dtype) -> Projection | None:
    """The layer as a Projection for products in `dtype`, where it is one: linear and frozen, with one LoRA or none.

    None for what peft or others add to that (DoRA, several adapters, trained biases, quantized weights, hooks).
    """
    from peft.tuners.lora.layer import Linear as LoraLinear

    if type(module) is nn.Linear:
        return frozen(module, dtype)
    if type(module) is not LoraLinear or not plain(module):
        return None
    base = frozen(module.base_layer, dtype) if type(module.base_layer) is nn.Linear else None
    if base is None or module.fan_in_fan_out:
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters:
        return None if module.merged else base
    if module.merged or not names:
        return base
    a, b = module.lora_A[names[0]], module.lora_B[names[0]]
    if len(names) > 1 or module.lora_variant.get(names[0]) or any(type(x) is not nn.Linear for x in (a, b)):
        return None
    if b.bias is not None or not plain(a) or not plain(b):
        return None
    dropout = module.lora_dropout[names[0]]
    if type(dropout) not in (nn.Dropout, nn.Identity):
        return None
    p = float(dropout.p) if type(dropout) is nn.Dropout and module.training else 0.0
    return Projection(base.weight, base.bias, a.weight, b.weight, float(module.scaling[names[0]]), p)


def frozen(module: nn.Linear, dtype: torch.dtype) -> Projection | None:
    weight, bias = module.weight, module.bias
    if not plain(module) or weight.requires_grad or weight.dtype != dtype:
        return None
    if bias is not None and (bias.requires_grad or bias.dtype != dtype):
        return None
    return Projection(weight, bias)


def frozen_layers(modules: Sequence[nn.Module], dtype: torch.dtype) -> list[Projection] | None:
    """Projections over one input, None if one of the modules is none, or their dropouts differ."""
    found = []
    for module in modules:
        layer = frozen_linear(module, dtype)
        if layer is None:
            return None
        found.append(layer)
    return found if len({layer.dropout for layer in found if layer.a is not None}) <= 1 else None
