"""A short identity of a base model's weights, so that an adapter is never merged into another model."""

import hashlib
from pathlib import Path

import torch

from swiftlite.checkpoint.config import read_config
from swiftlite.checkpoint.tensors import iter_tensors

_BLOCKS, _WIDTH = 4, 64  # samples a tensor: blocks of neighbouring values


def fingerprint(path: str | Path) -> str:
    """16 hex digits over native names, shapes, dtypes and evenly spaced samples of every weight.

    The same whatever the sharding, the file format or the layout (Qwen v1 upstream = its native conversion). A tied
    lm_head does not count, since some files carry a copy and others do not.
    """
    tied = read_config(path)['tie_word_embeddings']
    parts = {name: _sample(tensor) for name, tensor in iter_tensors(path) if not (tied and name == 'lm_head.weight')}
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(name.encode() + parts[name])
    return digest.hexdigest()[:16]


def _sample(tensor: torch.Tensor) -> bytes:
    flat = tensor.reshape(-1)
    last = max(flat.numel() - _WIDTH, 0)
    blocks = [flat[start : start + _WIDTH] for start in (last * i // (_BLOCKS - 1) for i in range(_BLOCKS))]
    values = torch.cat(blocks).contiguous().view(torch.uint8)
    return f'{tuple(tensor.shape)}{tensor.dtype}'.encode() + values.numpy().tobytes()
