"""Cross entropy of the trained positions only, without keeping their logits."""

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from swiftlite.template import IGNORE
from swiftlite_kernels import cross_entropy
from swiftlite_kernels.cross_entropy import reference

CHUNK = 1 << 24  # logits in flight, where they are held in fp32
FUSED_CHUNK = 160 << 20  # and where a kernel makes gradients of them in place
ROWS = 128  # a matrix product likes multiples of it
ROWS_TOGETHER = 4096  # that are multiplied by one number


class LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` against `targets`, and the number of correct predictions.

    The gradients are computed in the forward pass, a chunk of rows at a time, and written over the logits, so that no
    more than a chunk of them exists at once (chunked as in Liger Kernel, arXiv 2410.10989).

    hidden [N, H], weight [V, H], targets [N] int64, IGNORE where nothing is learnt; products in `dtype`, softmax and
    sums in fp32. softcap above 0 bends the logits (see swiftlite_kernels.cross_entropy). The gradient of the weight is
    summed in fp32, and left out where the weight is frozen.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        dtype: torch.dtype,
        train: bool,
        softcap: float,
        fused: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head, wide = weight.to(dtype), torch.float64 if dtype == torch.float64 else torch.float32
        rows = max(1, CHUNK // weight.shape[0])
        if fused and hidden.is_cuda:
            rows = max(ROWS, FUSED_CHUNK // weight.shape[0] // ROWS * ROWS)
        losses = torch.empty(hidden.shape[0], dtype=wide, device=hidden.device)
        correct = torch.empty(hidden.shape[0], dtype=torch.bool, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if train and ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if train and ctx.needs_input_grad[1] else None
        learns = grad_hidden is not None or grad_weight is not None
        op = cross_entropy.cross_entropy if fused else reference.cross_entropy
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            inputs = hidden[part].to(dtype)
            logits = inputs @ head.T  # [rows, V]
            op(losses[part], correct[part], logits, targets[part], None, softcap, IGNORE, learns)
            if grad_hidden is not None:
                grad_hidden[part] = logits @ head
            if grad_weight is not None:
                grad_weight += logits.T @ inputs
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        hits = correct.sum()
        ctx.mark_non_differentiable(hits)
        return losses.sum(), hits

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            scaled(grad_hidden, grad) if grad_hidden is not None else None,
            (grad_weight * grad).to(ctx.weight_dtype) if grad_weight is not None else None,
            *[None] * 5,
        )


def scaled(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """x [N, H] times a factor that is not rounded to x's dtype, a part of the rows in fp32 at a time."""
    out = torch.empty_like(x)
    for start in range(0, x.shape[0], ROWS_TOGETHER):
        part = slice(start, start + ROWS_TOGETHER)
        torch.mul(x[part].to(torch.promote_types(x.dtype, factor.dtype)), factor, out=out[part])
    return out


def linear_cross_entropy(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, softcap: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss fp32, correct int64) of the positions in `hidden` [N, H]; an adapted head is called as it is.

    A head that says `fused_loss` has its loss computed by the kernels.
    """
    if not is_linear(head) or head.bias is not None:
        logits = head(hidden).float()
        logits = softcap * torch.tanh(logits / softcap) if softcap else logits
        return nn.functional.cross_entropy(logits, targets, reduction='sum'), (logits.argmax(-1) == targets).sum()
    kind = hidden.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
    with torch.autocast(kind, enabled=False):
        fused = getattr(head, 'fused_loss', False)
        return LinearCrossEntropy.apply(hidden, head.weight, targets, dtype, torch.is_grad_enabled(), softcap, fused)


def is_linear(head: nn.Module) -> bool:
    """A plain linear layer, also where processes share its weight out; no adapted or quantized one."""
    return type(head) is nn.Linear or (isinstance(head, FSDPModule) and type(head).__bases__[-1] is nn.Linear)


def output_layer(model: Any) -> nn.Module:
    """The layer that makes the logits; of one that peft trains whole, the copy that is trained."""
    head = model.get_output_embeddings()
    copies = getattr(head, 'modules_to_save', None)
    return head if copies is None or head.disable_adapters else copies[head.active_adapters[0]]


def with_loss(head: nn.Module) -> nn.Module:
    """`head`, whose forward pass takes targets and then gives the loss, as linear_cross_entropy does."""

    def forward(self: Any, hidden: torch.Tensor, targets: torch.Tensor | None = None, softcap: float = 0.0) -> Any:
        if targets is None:
            return type(self).forward(self, hidden)
        return linear_cross_entropy(hidden, self, targets, softcap)

    if 'forward' not in head.__dict__:
        head.forward = MethodType(forward, head)
    return head


def install_loss(model: nn.Module) -> None:
    """Let a transformers causal LM take what Collator makes and return {'loss_sum', 'correct'}.

    Called without targets it behaves as before.
    """
    original = model.forward

    def forward(
        self: Any,
        input_ids: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if input_ids is None or targets is None:
            return original(input_ids=input_ids, **kwargs)
        ends = ('position_ids', 'cu_seqlens', 'lengths')
        where: dict[str, Any] = {name: kwargs[name] for name in ends if name in kwargs}
        if where:
            # with 4 dimensions it is taken as made already: no mask of [T, T] is built, and none is used
            where['attention_mask'] = input_ids.new_empty(1, 1, 1, 1)
        hidden = self.base_model(input_ids=input_ids, use_cache=False, **where).last_hidden_state  # [B, L, H]
        picked = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        softcap = getattr(self.config, 'final_logit_softcapping', None) or 0.0
        head = output_layer(self)
        # a linear head computes it in its own forward pass, around which its weight is gathered and let go
        compute = with_loss(head) if is_linear(head) else partial(linear_cross_entropy, head=head)
        loss_sum, correct = compute(picked, targets=targets, softcap=softcap)
        return {'loss_sum': loss_sum, 'correct': correct}

    model.forward = MethodType(forward, model)
