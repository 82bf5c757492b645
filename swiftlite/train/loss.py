"""Cross entropy of the trained positions only, without keeping their logits."""

from types import MethodType
from typing import Any

import torch
from torch import nn

CHUNK = 1 << 24  # logits in flight (fp32 elements)


class LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` against `targets`, and the number of correct predictions.

    The gradients are computed in the forward pass, a chunk of rows at a time, so at most CHUNK logits exist at once
    (chunked as in Liger Kernel, arXiv 2410.10989).

    hidden [N, H], weight [V, H], targets [N] int64; products in `dtype`, softmax and sums in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype, train: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = weight.to(dtype)
        rows = max(1, CHUNK // weight.shape[0])
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if train and ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if train and ctx.needs_input_grad[1] else None
        for start in range(0, hidden.shape[0], rows):
            part, wanted = hidden[start : start + rows].to(dtype), targets[start : start + rows, None]
            logits = (part @ head.T).float()  # [rows, V]
            total = logits.logsumexp(-1, keepdim=True)
            loss += (total - logits.gather(1, wanted)).sum()
            correct += (logits.argmax(-1, keepdim=True) == wanted).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            logits.sub_(total).exp_()
            logits.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            slope = logits.to(dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + rows] = slope @ head
            if grad_weight is not None:
                grad_weight += slope.T @ part
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            grad_hidden * grad.to(grad_hidden.dtype) if grad_hidden is not None else None,
            (grad_weight * grad).to(ctx.weight_dtype) if grad_weight is not None else None,
            None,
            None,
            None,
        )


def linear_cross_entropy(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss fp32, correct int64) of the positions in `hidden` [N, H]; an adapted head is called as it is."""
    if type(head) is not nn.Linear or head.bias is not None:
        logits = head(hidden).float()
        return nn.functional.cross_entropy(logits, targets, reduction='sum'), (logits.argmax(-1) == targets).sum()
    kind = hidden.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
    with torch.autocast(kind, enabled=False):
        return LinearCrossEntropy.apply(hidden, head.weight, targets, dtype, torch.is_grad_enabled())


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
        loss_sum, correct = linear_cross_entropy(picked, self.get_output_embeddings(), targets)
        return {'loss_sum': loss_sum, 'correct': correct}

    model.forward = MethodType(forward, model)
