"""Cross entropy of rows of logits in torch."""

import torch


def cross_entropy(
    losses: torch.Tensor,
    correct: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    softcap: float = 0.0,
    ignore_index: int = -100,
    gradient: bool = True,
) -> None:
    if logits.shape[0] == 0:
        return
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    seen = targets != ignore_index
    wanted = targets.where(seen, 0)[:, None]
    x = logits.to(dtype)
    bent = softcap * torch.tanh(x / softcap) if softcap else x
    total = bent.logsumexp(-1, keepdim=True)
    scale = seen.to(dtype) if weights is None else weights.to(dtype).where(seen, 0)
    losses.copy_((total - bent.gather(1, wanted))[:, 0] * scale)
    correct.copy_((x.argmax(-1) == wanted[:, 0]) & seen)
    if gradient:
        slope = (bent - total).exp_()
        slope.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=dtype))
        if softcap:
            slope *= 1 - (bent / softcap).square()
        logits.copy_(slope * scale[:, None])
