"""Blocks of a cache as bytes."""

import torch


def as_blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """x's storage from its first element on as uint8 [blocks, size]."""
    start = x.storage_offset() * x.element_size()
    room = (x.untyped_storage().nbytes() - start) // size
    return torch.empty(0, dtype=torch.uint8, device=x.device).set_(x.untyped_storage(), start, (room, size), (size, 1))


def check_blocks(src: torch.Tensor, dst: torch.Tensor, size: int, mapping: torch.Tensor) -> None:
    """ValueError for a mapping that names a block outside of src or dst."""
    if mapping.dim() != 2 or mapping.shape[1] != 2 or mapping.dtype != torch.int64 or mapping.is_cuda:
        raise ValueError(f'block_mapping must be int64 [n, 2] on the CPU, got {mapping.dtype} {tuple(mapping.shape)}')
    if size < 1:
        raise ValueError(f'block_size_in_bytes must be at least 1, got {size}')
    for name, x, blocks in (('src', src, mapping[:, 0]), ('dst', dst, mapping[:, 1])):
        if not len(blocks):
            continue
        room, low, high = as_blocks(x, size).shape[0], int(blocks.min()), int(blocks.max())
        if low < 0 or high >= room:
            raise ValueError(f'{name} has {room} blocks of {size} bytes, not block {low if low < 0 else high}')


def runs(mapping: torch.Tensor) -> list[tuple[int, int, int]]:
    """(from, to, count) of neighbours that go to neighbours, in the mapping's order."""
    found: list[tuple[int, int, int]] = []
    for source, target in mapping.tolist():
        if found and (source, target) == (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]):
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((source, target, 1))
    return found
