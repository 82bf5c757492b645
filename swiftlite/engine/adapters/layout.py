"""Where the numbers of an adapter's file go in its copy: worked out once for all adapters of one shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from ...checkpoint.adapter import LoRAWeights
from ...checkpoint.flat_file import BITS
from ...layers.linear import Linear
from ...layers.lora import PAGE

PIECE = 16 << 20  # bytes; pinned memory is kept for the next adapter, which uses pieces of one size again
BLOCK = 1 << 15  # numbers; torch uses more threads for larger operands, which many readers would start and spin


@dataclass(frozen=True)
class Group:
    """Layers of the same shape, whose pools are one tensor: a [layers, slices, ranks, in], b [layers, ranks, out]."""

    linears: tuple[Linear, ...]


def groups(linears: Iterable[Linear]) -> list[Group]:
    """By shape and names of their slices, in order."""
    found: dict[tuple, list[Linear]] = {}
    for linear in linears:
        found.setdefault((linear.in_features, linear.slices), []).append(linear)
    return [Group(tuple(alike)) for alike in found.values()]


@dataclass(frozen=True)
class Array:
    """A of neighbouring layers of a group [layers, slices, R, in], or B [layers, R, out], in a piece of the copy."""

    group: int
    first: int
    is_a: bool
    piece: int
    start: int
    shape: tuple[int, ...]

    @property
    def rank_dim(self) -> int:
        return 2 if self.is_a else 1

    def of(self, piece: torch.Tensor) -> torch.Tensor:
        return piece[self.start : self.start + prod(self.shape)].view(self.shape)


@dataclass(frozen=True)
class Strided:
    """Numbers of a flat tensor: offset, and stride of each dimension."""

    at: int
    strides: tuple[int, ...]

    def of(self, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        size = numbers.itemsize
        return np.ndarray(shape, numbers.dtype, numbers, self.at * size, [size * stride for stride in self.strides])


@dataclass(frozen=True)
class Move:
    """From the file's numbers to a piece; equal moves at equal distances are one of another dimension."""

    piece: int
    shape: tuple[int, ...]
    source: Strided
    target: Strided

    @property
    def alike(self) -> tuple[tuple[int, ...], ...]:
        return self.shape, self.source.strides, self.target.strides


Scaled = tuple[tuple[float, tuple[int, ...]], ...]  # scaling, and which parts of the numbers it is for


@dataclass(frozen=True)
class Layout:
    """R is the rank in whole pages; what is beyond the rank is zero, and layers that are no target have no arrays."""

    rank: int
    dtype: torch.dtype  # of the file
    sizes: tuple[int, ...]  # of the pieces; the last ones hold the matrices of `vocab`
    arrays: tuple[Array, ...]
    vocab: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # name, shapes of A and B
    blank: tuple[tuple[int, int, int], ...]  # (piece, start, end) of arrays that the moves do not fill
    moves: tuple[Move, ...]
    scaled: Scaled
    cuts: tuple[int, ...]  # sizes of the parts of all numbers, of at most BLOCK in a B

    @property
    def largest_scaling(self) -> float:
        return max((abs(scaling) for scaling, _ in self.scaled), default=1.0)

    def scale(self, numbers: torch.Tensor) -> None:
        """Multiply each B with its scaling, in place."""
        parts = numbers.split_with_sizes(self.cuts) if any(s != 1 for s, _ in self.scaled) else ()
        for scaling, which in self.scaled:
            if scaling != 1:
                # a tensor: a plain number is rounded to the parts' dtype first
                torch._foreach_mul_([parts[i] for i in which], torch.tensor(scaling))

    def fill(self, numbers: torch.Tensor, pieces: Sequence[torch.Tensor]) -> None:
        """numbers [n] of the file, scaled, in the pieces' dtype."""
        bits = BITS[numbers.dtype.itemsize]
        source = numbers.view(bits).numpy()
        targets = [piece.view(bits).numpy() for piece in pieces]
        for piece, start, end in self.blank:
            targets[piece][start:end] = 0
        for move in self.moves:
            np.copyto(move.target.of(targets[move.piece], move.shape), move.source.of(source, move.shape))


class LayoutMaker:
    """Layouts for the linear layers of one model, on one rank."""

    def __init__(self, groups: Sequence[Group], dtype: torch.dtype):
        self._groups, self._room = groups, PIECE // dtype.itemsize

    def __call__(self, modules: dict[str, LoRAWeights], vocab: dict[str, LoRAWeights], numbers: torch.Tensor) -> Layout:
        """modules: all of them views of `numbers` [n], like those of the embedding and the output layer."""
        rank = max((weights.rank for weights in modules.values()), default=1)
        sizes, arrays = self._place(modules, -(-rank // PAGE) * PAGE)
        moves: list[Move] = []
        blank: list[tuple[int, int, int]] = []
        for array in arrays:
            found = self._moves(array, modules)
            if sum(prod(move.shape) for move in found) < prod(array.shape):
                blank.append((array.piece, array.start, array.start + prod(array.shape)))
            moves += found
        shapes = []
        for name, weights in vocab.items():
            shapes.append((name, tuple(weights.a.shape), tuple(weights.b.shape)))
            for tensor in (weights.a, weights.b):
                moves.append(_move(len(sizes), tensor, torch.empty(tensor.shape, device='meta')))
                sizes.append(tensor.numel())
        scaled, cuts = _cuts([*modules.values(), *vocab.values()], numbers.numel())
        return Layout(
            rank, numbers.dtype, tuple(sizes), tuple(arrays), tuple(shapes), tuple(blank), tuple(moves), scaled, cuts,
        )  # fmt: skip

    def _place(self, modules: dict[str, LoRAWeights], rows: int) -> tuple[list[int], list[Array]]:
        """Sizes of the pieces, and what lies in them."""
        arrays: list[Array] = []
        sizes: list[int] = []
        for number, group in enumerate(self._groups):
            used = [any(f'{x.prefix}.{s.name}' in modules for s in x.slices) for x in group.linears]
            slices, n_in = len(group.linears[0].slices), group.linears[0].in_features
            out = sum(s.rows for s in group.linears[0].slices)
            for is_a, shape in ((True, (slices, rows, n_in)), (False, (rows, out))):
                at = 0
                while True in used[at:]:
                    at = used.index(True, at)
                    end = used.index(False, at) if False in used[at:] else len(used)
                    if not sizes or sizes[-1] + prod(shape) > self._room:
                        sizes.append(0)
                    end = min(end, at + max(1, (self._room - sizes[-1]) // prod(shape)))
                    arrays.append(Array(number, at, is_a, len(sizes) - 1, sizes[-1], (end - at, *shape)))
                    sizes[-1] += -(-(end - at) * prod(shape) // 8) * 8  # the next one is aligned too
                    at = end
        return sizes, arrays

    def _moves(self, array: Array, modules: dict[str, LoRAWeights]) -> list[Move]:
        out = array.of(torch.empty(array.start + prod(array.shape), device='meta'))
        linears = self._groups[array.group].linears[array.first : array.first + len(out)]
        moves = []
        for index, s in enumerate(linears[0].slices):
            alike = []
            for part, linear in zip(out, linears, strict=True):
                weights = modules.get(f'{linear.prefix}.{s.name}')
                if weights is None:
                    continue
                a, b = linear.shard_lora(s, weights.a, weights.b)
                if array.is_a:
                    alike.append(_move(array.piece, a, part[index, : weights.rank]))
                else:
                    alike.append(_move(array.piece, b.t(), part[: weights.rank, s.start : s.start + s.rows]))
            moves += merged(alike)
        return moves


def _move(piece: int, source: torch.Tensor, target: torch.Tensor) -> Move:
    """source: a view of the file's numbers; target: of a piece."""
    ends = [Strided(int(tensor.storage_offset()), tensor.stride()) for tensor in (source, target)]
    return Move(piece, tuple(source.shape), *ends)


def merged(moves: Iterable[Move]) -> list[Move]:
    """Of moves into one piece: those that are alike and at equal distances as one."""
    left = sorted(moves, key=lambda move: move.source.at)  # files have layer 10 after layer 1
    out = []
    while left:
        first, count, step = left[0], 1, (0, 0)
        for here, after in itertools.pairwise(left):
            distance = after.source.at - here.source.at, after.target.at - here.target.at
            if after.alike != first.alike or (count > 1 and distance != step):
                break
            count, step = count + 1, distance
        source = Strided(first.source.at, (step[0], *first.source.strides))
        target = Strided(first.target.at, (step[1], *first.target.strides))
        out.append(Move(first.piece, (count, *first.shape), source, target))
        del left[:count]
    return out


def _cuts(weights: Sequence[LoRAWeights], count: int) -> tuple[Scaled, tuple[int, ...]]:
    """Parts of `count` numbers, and which of them are the B's of each scaling."""
    which: dict[float, list[int]] = {}
    cuts: list[int] = []
    at = 0
    for w in sorted(weights, key=lambda w: w.b.storage_offset()):
        start, end = int(w.b.storage_offset()), int(w.b.storage_offset()) + w.b.numel()
        cuts.append(start - at)
        for begin in range(start, end, BLOCK):
            which.setdefault(w.scaling, []).append(len(cuts))
            cuts.append(min(BLOCK, end - begin))
        at = end
    cuts.append(count - at)
    return tuple((scaling, tuple(found)) for scaling, found in which.items()), tuple(cuts)
