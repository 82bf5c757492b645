"""Sampling of the next token, and the repetition penalty.

A row's token depends on its own logits, parameters, seed and position only: the noise is a counter-based function of
(seed, position, token id), so neither the batch, the padding of the vocabulary nor the device changes it.
"""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['apply_repetition_penalties', 'philox_uniform', 'sample']


def philox_uniform(seeds: torch.Tensor, positions: torch.Tensor, vocab: int) -> torch.Tensor:
    """Uniform fp32 numbers [R, vocab] in (0, 1), the same bits on every device.

    seeds, positions int64 [R]. Philox4x32-7 (Salmon et al. 2011) with key = seed and counter (id // 4, low and high
    word of the position, 0); token id takes output word id % 4, and u = word * 2^-32 + 2^-33 rounded to fp32, at most
    1 - 2^-24.
    """
    return backend('sampling', seeds).philox_uniform(seeds, positions, vocab)


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor | None,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """One token id a row, int64 [R].

    logits [R, V], fp32 (fp16, bf16 are read as fp32); temperature fp32 [R], below 1e-5 = the largest logit, lowest id
    first; top_k int [R], ≤ 0 or ≥ V = off; top_p fp32 [R], ≥ 1 = off; min_p fp32 [R], ≤ 0 = off; seeds, positions
    int64 [R]. None for temperature makes all rows greedy, None for a filter turns it off without looking at the
    device.

    The filters keep the tokens whose logit reaches a threshold, so equal logits stay or go together: min_p keeps p ≥
    min_p * max p; top_k what is ≥ the k-th largest; top_p, over what these two left, the smallest such set holding
    top_p of its mass. The token is the argmax over the kept ids of logit / temperature - log(-log1p(-u)), u from
    philox_uniform: a draw from the filtered distribution (Gumbel 1954).
    """
    return backend('sampling', logits).sample(logits, temperature, top_k, top_p, min_p, seeds, positions)


def apply_repetition_penalties(
    logits: torch.Tensor, prompt_mask: torch.Tensor, output_mask: torch.Tensor, repetition_penalties: torch.Tensor
) -> None:
    """In place: tokens seen in the prompt or the output get logit / penalty if positive, else logit * penalty (Keskar
    2019).

    logits [R, V]; prompt_mask, output_mask bool [R, V]; repetition_penalties [R].
    """
    backend('sampling', logits).apply_repetition_penalties(logits, prompt_mask, output_mask, repetition_penalties)
