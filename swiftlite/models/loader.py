"""Fill a network from a checkpoint, tensor by tensor."""

from __future__ import annotations

import torch

from ..checkpoint.tensors import iter_tensors
from ..errors import SwiftliteError
from .decoder import Decoder


def load_weights(model: Decoder, path: str) -> None:
    """Stream `path`'s tensors (native names) into `model`; SwiftliteError names what does not fit."""
    targets = model.targets()
    waiting = set(targets)
    unknown = []
    for name, tensor in iter_tensors(path):
        if name not in targets:
            if not _ignorable(name, model) and not _is_kv_scale(path, name, tensor, model):
                unknown.append(name)
            continue
        if tuple(tensor.shape) != targets[name].shape:
            raise SwiftliteError(
                f"{path}: tensor '{name}' has shape {list(tensor.shape)}, "
                f'but config.json says {list(targets[name].shape)}.'
            )
        targets[name].copy(tensor)
        waiting.discard(name)
    if waiting:
        raise SwiftliteError(
            f'{path}: {len(waiting)} tensor(s) missing, first: {min(waiting)}'
            + (f'; {len(unknown)} unknown, first: {unknown[0]}.' if unknown else '.')
        )
    if unknown:
        raise SwiftliteError(
            f'{path}: {len(unknown)} tensor(s) that this architecture does not have, first: {unknown[0]}.'
        )


def fill_dummy(model: Decoder, seed: int) -> None:
    """Random weights (load_format='dummy'): normal, scaled by fan-in so that activations stay finite."""
    for i, p in enumerate(model.parameters()):
        g = torch.Generator(device=p.device).manual_seed(seed * 1_000_003 + i)
        if p.dim() == 1:
            p.data.fill_(1.0)
        else:
            p.data.normal_(0.0, p.shape[-1] ** -0.5, generator=g)
    for linear in model.linears():
        if linear.bias is not None:
            linear.bias.data.zero_()


def _is_kv_scale(path: str, name: str, tensor: torch.Tensor, model: Decoder) -> bool:
    if not name.endswith('_scale') or tensor.numel() != 1:
        return False
    try:
        return model.set_kv_scale(name, tensor)
    except ValueError as error:
        raise SwiftliteError(f"{path}: tensor '{name}': {error}.") from None


def _ignorable(name: str, model: Decoder) -> bool:
    return name.endswith('rotary_emb.inv_freq') or (name == 'lm_head.weight' and model.config.tie_word_embeddings)
