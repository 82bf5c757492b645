"""Adapters in host memory, in the layout of the pools: read and checked once, then a few copies away from a device."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from ...checkpoint.adapter import LoRAWeights
from ...checkpoint.adapter_files import AdapterFiles, read_files
from ...checkpoint.flat_file import largest
from ...checkpoint.tensors import all_finite
from ...errors import SwiftliteError
from ...layers.vocab_lora import VocabPair
from .layout import BLOCK, Array, Group, Layout, LayoutMaker

VOCAB = ('model.embed_tokens', 'lm_head')
SHAPES = 64  # kinds of adapters whose layouts are kept


@dataclass(frozen=True)
class HostAdapter:
    """An adapter's arrays one behind the other."""

    rank: int
    pieces: list[torch.Tensor]  # [n] of the pools' dtype, pinned for a GPU
    arrays: Sequence[Array]  # by piece
    vocab: dict[str, VocabPair]  # of the embedding and the output layer, whole on every rank

    @property
    def num_bytes(self) -> int:
        pairs = [tensor for pair in self.vocab.values() for tensor in (pair.a, pair.b)]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.pieces, *pairs))


class Scratch(threading.local):
    """Memory of a thread that is used again and again: what is mapped anew costs a fault a page."""

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, count: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        """[count], overwritten by the next call for this dtype."""
        found = self._buffers.get(dtype)
        if found is None or len(found) < count:
            found = self._buffers[dtype] = torch.empty(count, dtype=dtype)
        return found[:count]


class AdapterFormat:
    """This rank's part of adapters for the linear layers of one model."""

    def __init__(
        self,
        groups: Sequence[Group],
        sizes: dict[str, tuple[int, int]],
        max_rank: int,
        dtype: torch.dtype,
        pinned: bool,
    ):
        """sizes: (in, out) features of the whole model's layers by the last part of their name."""
        self._groups, self._sizes, self._max_rank = groups, sizes, max_rank
        self._dtype, self._pinned = dtype, pinned
        linears = [linear for group in groups for linear in group.linears]
        self._known = {f'{linear.prefix}.{s.name}': s.name for linear in linears for s in linear.slices}
        self._known |= {name: name.rpartition('.')[2] for name in VOCAB}
        self._scratch = Scratch()
        self._make = LayoutMaker(groups, dtype)
        self._layouts: OrderedDict[tuple[bytes, bytes, int], Layout] = OrderedDict()
        self._making = threading.Lock()  # guards _layouts

    def read(self, path: str) -> HostAdapter:
        """Read and check the adapter in a folder; SwiftliteError names the tensor that does not fit."""
        files = read_files(path, self._scratch)
        layout, numbers = self._layout(path, files)
        top = largest(numbers)
        if not isfinite(top):
            files.adapter(check_values=True)  # says which
        numbers = self._scaled(layout, numbers)
        pieces = [torch.empty(size, dtype=self._dtype, pin_memory=self._pinned) for size in layout.sizes]
        layout.fill(numbers, pieces)
        count = len(pieces) - 2 * len(layout.vocab)
        ends = iter(pieces[count:])
        vocab = {name: VocabPair(next(ends).view(a), next(ends).view(b)) for name, a, b in layout.vocab}
        adapter = HostAdapter(layout.rank, pieces[:count], layout.arrays, vocab)
        if not top * max(layout.largest_scaling, 1.0) <= torch.finfo(self._dtype).max:
            self._check_fits(path, adapter)
        return adapter

    def _layout(self, path: str, files: AdapterFiles) -> tuple[Layout, torch.Tensor]:
        """Where the numbers go, and the numbers [n]."""
        if files.key is None or files.weights is None:
            return self._new_layout(path, files)
        with self._making:
            layout = self._layouts.get(files.key)
            if layout is None:
                layout, numbers = self._new_layout(path, files)
                if numbers.data_ptr() == files.weights.data.data_ptr():
                    self._layouts[files.key] = layout
                    if len(self._layouts) > SHAPES:
                        self._layouts.popitem(last=False)
                return layout, numbers
            self._layouts.move_to_end(files.key)
        return layout, files.weights.data.view(layout.dtype)

    def _new_layout(self, path: str, files: AdapterFiles) -> tuple[Layout, torch.Tensor]:
        modules = files.adapter(check_values=False).modules
        self._check(path, modules)
        numbers = _flat(modules, files.weights.data if files.weights is not None else None)
        vocab = {name: modules.pop(name) for name in VOCAB if name in modules}
        return self._make(modules, vocab, numbers), numbers

    def _scaled(self, layout: Layout, numbers: torch.Tensor) -> torch.Tensor:
        """In the pools' dtype, rounded once."""
        if numbers.dtype not in (self._dtype, torch.float32):
            numbers = self._converted(numbers, torch.float32)
        layout.scale(numbers)
        return self._converted(numbers, self._dtype)

    def _converted(self, numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if numbers.dtype == dtype:
            return numbers
        out = self._scratch(len(numbers), dtype)
        torch._foreach_copy_(out.split(BLOCK), numbers.split(BLOCK))
        return out

    def _check(self, path: str, modules: dict[str, LoRAWeights]) -> None:
        for name, weights in modules.items():
            if name not in self._known:
                raise SwiftliteError(
                    f"{path}: the adapter changes '{name}', which is not a linear layer of this model; "
                    'it was trained on another base.'
                )
            n_in, n_out = self._sizes[self._known[name]]
            if weights.a.shape[1] != n_in or weights.b.shape[0] != n_out:
                raise SwiftliteError(
                    f"{path}: '{name}' maps {weights.a.shape[1]} to {weights.b.shape[0]} features, but this model's "
                    f'layer maps {n_in} to {n_out}; the adapter was trained on another base.'
                )
        rank = max(weights.rank for weights in modules.values())
        if rank > self._max_rank:
            raise SwiftliteError(
                f'{path}: the adapter has rank {rank}, but this engine takes ranks up to {self._max_rank}; '
                f'start it with max_lora_rank {rank} (--max_lora_rank).'
            )

    def _check_fits(self, path: str, adapter: HostAdapter) -> None:
        """Refuse numbers that are too large for the pools' dtype."""
        for array in adapter.arrays:
            linears = self._groups[array.group].linears[array.first :]
            for part, linear in zip(array.of(adapter.pieces[array.piece]), linears, strict=False):
                for index, s in enumerate(linear.slices):
                    found = part[index] if array.is_a else part[:, s.start : s.start + s.rows]
                    self._check_finite(path, f"lora_{'BA'[array.is_a]} of '{linear.prefix}.{s.name}'", found)
        for name, pair in adapter.vocab.items():
            for tensor in (pair.a, pair.b):
                self._check_finite(path, f"an adapter matrix of '{name}'", tensor)

    def _check_finite(self, path: str, what: str, tensor: torch.Tensor) -> None:
        if not all_finite(tensor):
            dtype = str(self._dtype).removeprefix('torch.')
            raise SwiftliteError(f'{path}: {what} is too large for {dtype}, in which this engine computes.')


def _flat(modules: dict[str, LoRAWeights], data: torch.Tensor | None) -> torch.Tensor:
    """Numbers [n] of which all matrices are views: the file's, or where they are of several kinds an fp32 copy."""
    tensors = [tensor for w in modules.values() for tensor in (w.a, w.b)]
    dtype = tensors[0].dtype
    if data is not None and len(data) % dtype.itemsize == 0:
        home = data.untyped_storage().data_ptr()
        if all(t.dtype == dtype and t.untyped_storage().data_ptr() == home for t in tensors):
            return data.view(dtype)
    numbers = torch.empty(sum(t.numel() for t in tensors))
    at = 0
    for w in modules.values():
        for name in ('a', 'b'):
            tensor = getattr(w, name)
            view = numbers[at : at + tensor.numel()].view(tensor.shape)
            setattr(w, name, view.copy_(tensor))
            at += tensor.numel()
    return numbers
