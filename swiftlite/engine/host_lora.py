"""Adapters in host memory, in the layout of the pools: read and checked once, then a few copies away from a device."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from ..checkpoint.adapter import AdapterState, LoRAWeights, adapter_state, read_adapter
from ..checkpoint.tensors import all_finite
from ..errors import SwiftliteError
from ..layers.linear import Linear
from ..layers.lora import PAGE
from ..layers.vocab_lora import VocabPair

VOCAB = ('model.embed_tokens', 'lm_head')
READERS = 4  # what they do is mostly done without the interpreter's lock
LINGER = 1.0  # seconds that one waits for more; to start another would hold up the step
CHUNK = 16 << 20  # bytes; pinned memory is kept for the next adapter, which uses pieces of one size again


@dataclass(frozen=True)
class AdapterRead:
    """What came of reading an adapter: its rank and its size in host memory, or why it cannot be used."""

    uid: int
    rank: int = 0
    num_bytes: int = 0
    state: AdapterState = ()
    error: str | None = None


@dataclass(frozen=True)
class Array:
    """One layer's A [slices, R, in] (rank_dim 1) or B [R, out] (rank_dim 0) in a piece of the copy."""

    linear: int
    rank_dim: int
    chunk: int
    start: int
    shape: tuple[int, ...]

    def of(self, chunk: torch.Tensor) -> torch.Tensor:
        return chunk[self.start : self.start + prod(self.shape)].view(self.shape)


@dataclass(frozen=True)
class HostAdapter:
    """An adapter's arrays one behind the other. R is its rank in whole pages; what is beyond the rank is zero."""

    rank: int
    chunks: list[torch.Tensor]  # [n] of the pools' dtype, pinned for a GPU
    arrays: list[Array]
    vocab: dict[str, VocabPair]  # of the embedding and the output layer, whole on every rank

    @property
    def num_bytes(self) -> int:
        pairs = [tensor for pair in self.vocab.values() for tensor in (pair.a, pair.b)]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.chunks, *pairs))


class AdapterFormat:
    """This rank's part of adapters for the linear layers of one model."""

    def __init__(
        self,
        linears: Sequence[Linear],
        sizes: dict[str, tuple[int, int]],
        max_rank: int,
        dtype: torch.dtype,
        pinned: bool,
    ):
        """sizes: (in, out) features of the whole model's layers by the last part of their name."""
        self._linears, self._sizes, self._max_rank = linears, sizes, max_rank
        self._dtype, self._pinned = dtype, pinned
        self._known = {f'{linear.prefix}.{s.name}': s.name for linear in linears for s in linear.slices}
        self._known |= {name: name.rpartition('.')[2] for name in VOCAB}

    def read(self, path: str) -> HostAdapter:
        """Read and check the adapter in a folder; SwiftliteError names the tensor that does not fit."""
        modules = read_adapter(path).modules
        self._check(path, modules)
        vocab = {name: self._vocab_pair(path, name, modules.pop(name)) for name in VOCAB if name in modules}
        rank = max((weights.rank for weights in modules.values()), default=1)
        chunks, arrays = self._allocate(modules, rank)
        for array in arrays:
            self._fill(path, array, array.of(chunks[array.chunk]), modules)
        return HostAdapter(rank, chunks, arrays, vocab)

    def _vocab_pair(self, path: str, name: str, weights: LoRAWeights) -> VocabPair:
        pair = VocabPair(
            *(
                torch.empty(tensor.shape, dtype=self._dtype, pin_memory=self._pinned).copy_(tensor)
                for tensor in (weights.a, weights.b.float() * weights.scaling)
            )
        )
        for tensor in (pair.a, pair.b):
            self._check_finite(path, f"an adapter matrix of '{name}'", tensor)
        return pair

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

    def _allocate(self, modules: dict[str, LoRAWeights], rank: int) -> tuple[list[torch.Tensor], list[Array]]:
        """Zeros, laid out: layers that are no target have no arrays."""
        rows, room = -(-rank // PAGE) * PAGE, CHUNK // self._dtype.itemsize
        arrays: list[Array] = []
        sizes: list[int] = []
        for index, linear in enumerate(self._linears):
            if not any(f'{linear.prefix}.{s.name}' in modules for s in linear.slices):
                continue
            out = sum(s.rows for s in linear.slices)
            for rank_dim, shape in ((1, (len(linear.slices), rows, linear.in_features)), (0, (rows, out))):
                size = -(-prod(shape) // 8) * 8  # the next one is aligned too
                if not sizes or sizes[-1] + size > room:
                    sizes.append(0)
                arrays.append(Array(index, rank_dim, len(sizes) - 1, sizes[-1], shape))
                sizes[-1] += size
        return [torch.empty(size, dtype=self._dtype, pin_memory=self._pinned).zero_() for size in sizes], arrays

    def _fill(self, path: str, array: Array, out: torch.Tensor, modules: dict[str, LoRAWeights]) -> None:
        linear = self._linears[array.linear]
        for index, s in enumerate(linear.slices):
            weights = modules.get(f'{linear.prefix}.{s.name}')
            if weights is None:
                continue
            a, b = linear.shard_lora(s, weights.a, weights.b)
            if array.rank_dim:
                part = out[index, : weights.rank].copy_(a)
            else:
                part = out[: weights.rank, s.start : s.start + s.rows].copy_((b.float() * weights.scaling).t())
            self._check_finite(path, f"lora_{'BA'[array.rank_dim]} of '{linear.prefix}.{s.name}'", part)

    def _check_finite(self, path: str, what: str, tensor: torch.Tensor) -> None:
        if not all_finite(tensor):
            dtype = str(self._dtype).removeprefix('torch.')
            raise SwiftliteError(f'{path}: {what} is too large for {dtype}, in which this engine computes.')


Job = tuple[int, str, AdapterState | None, Callable[[AdapterRead], None]]


class AdapterReader:
    """Reads adapters in a few threads, beside the steps. `copies`: by uid, what was read."""

    def __init__(self, form: AdapterFormat, device: torch.device | str | None):
        """device: the GPU for which memory is pinned, if any."""
        self.copies: dict[int, HostAdapter] = {}
        self._format, self._device = form, device
        self._reads: deque[Job] = deque()
        self._work = threading.Condition()  # guards what is to be read, and how many threads there are and wait for it
        self._threads = self._idle = 0
        self._telling = threading.Lock()  # one calls `done` at a time, which may take a while

    def start(self, uid: int, path: str, known: AdapterState | None, done: Callable[[AdapterRead], None]) -> None:
        """Read and check an adapter, then call `done` in a thread. known: the state its files must still be in."""
        with self._work:
            self._reads.append((uid, path, known, done))
            self._work.notify()
            if self._threads == READERS or len(self._reads) <= self._idle:
                return
            self._threads += 1
        threading.Thread(target=self._run, daemon=True, name='adapter-read').start()

    def _run(self) -> None:
        if self._device is not None:
            torch.cuda.set_device(self._device)  # each thread has its own
        while (job := self._next()) is not None:
            uid, path, known, done = job
            read = self._read(uid, path, known)
            with self._telling, contextlib.suppress(OSError):  # nobody listens any more
                done(read)

    def _next(self) -> Job | None:
        """What is to be read next; None when there was nothing for a while, and the thread is to end."""
        with self._work:
            self._idle += 1
            found = self._work.wait_for(lambda: len(self._reads) > 0, LINGER)
            self._idle -= 1
            if found:
                return self._reads.popleft()
            self._threads -= 1
            return None

    def _read(self, uid: int, path: str, known: AdapterState | None) -> AdapterRead:
        try:
            state = adapter_state(path)
            if known is not None and state != known:
                raise SwiftliteError(f'{path} has changed since the adapter was loaded; load it again.')
            copy = self._format.read(path)
            if adapter_state(path) != state:
                raise SwiftliteError(f'{path} was changed while it was read; load it again.')
        except SwiftliteError as error:
            return AdapterRead(uid, error=str(error))
        except Exception as error:  # whatever a disk or a library does costs this adapter alone
            traceback.print_exc()
            return AdapterRead(uid, error=f'{path} cannot be read ({type(error).__name__}: {error}).')
        self.copies[uid] = copy
        return AdapterRead(uid, copy.rank, copy.num_bytes, state)
