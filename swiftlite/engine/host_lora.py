"""Adapters in host memory, in the layout of the pools: read and checked once, then a few copies away from a device."""

from __future__ import annotations

import contextlib
import threading
import time
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
LOOK = 1.0  # seconds between two looks at what is being read
SLOW = 10.0  # seconds after which a read does not keep another from starting
GIVE_UP = 300.0  # seconds after which it has failed
MOST_READERS = 64  # with those that hang
NO_ANSWER = f'has not been read within {GIVE_UP:g} s: does its disk answer?'
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


@dataclass(eq=False)
class Job:
    """An adapter to read; `done` is told what came of it, once. known: the state its files must still be in."""

    uid: int
    path: str
    known: AdapterState | None
    done: Callable[[AdapterRead], None]
    begun: float = 0.0  # when a thread took it


class AdapterReader:
    """Reads adapters in a few threads, beside the steps. `copies`: by uid, what was read.

    A disk may hang, and what reads from it cannot be ended: a thread that is slow is not counted any more, so that
    another takes up what waits, and a read that takes too long is given up; its thread ends when the disk answers.
    """

    def __init__(self, form: AdapterFormat, device: torch.device | str | None):
        """device: the GPU for which memory is pinned, if any."""
        self.copies: dict[int, HostAdapter] = {}
        self._format, self._device = form, device
        self._reads: deque[Job] = deque()
        self._work = threading.Condition()  # guards all that follows
        self._threads = self._idle = 0
        self._running: set[Job] = set()
        self._hung: set[Job] = set()  # given up, and their threads are there still
        self._watched = False
        self._telling = threading.Lock()  # one calls `done` at a time, which may take a while

    def start(self, uid: int, path: str, known: AdapterState | None, done: Callable[[AdapterRead], None]) -> None:
        """Read and check an adapter, then call `done` in a thread. known: the state its files must still be in."""
        with self._work:
            self._reads.append(Job(uid, path, known, done))
            self._work.notify()
            self._enlist()
            if self._watched:
                return
            self._watched = True
        threading.Thread(target=self._watch, daemon=True, name='adapter-watch').start()

    def _enlist(self) -> None:
        """Start a thread where one is missing; the lock is held."""
        now = time.monotonic()
        slow = len(self._hung) + sum(now - job.begun > SLOW for job in self._running)
        if len(self._reads) > self._idle and self._threads - slow < READERS and self._threads < MOST_READERS:
            self._threads += 1
            threading.Thread(target=self._run, daemon=True, name='adapter-read').start()

    def _watch(self) -> None:
        """Look after the threads while there is something to read."""
        while True:
            time.sleep(LOOK)
            with self._work:
                self._watched = bool(self._reads or self._running)
                if not self._watched:
                    return
                self._enlist()
                now = time.monotonic()
                late = [job for job in self._running if now - job.begun > GIVE_UP]
                self._running.difference_update(late)
                self._hung.update(late)
            for job in late:
                self._tell(job, AdapterRead(job.uid, error=f'{job.path} {NO_ANSWER}'))

    def _run(self) -> None:
        if self._device is not None:
            torch.cuda.set_device(self._device)  # each thread has its own
        while (job := self._next()) is not None:
            read, copy = self._read(job)
            with self._work:
                if job in self._hung:
                    self._hung.discard(job)
                    continue
                self._running.discard(job)
                if copy is not None:
                    self.copies[job.uid] = copy
            self._tell(job, read)

    def _tell(self, job: Job, read: AdapterRead) -> None:
        with self._telling, contextlib.suppress(OSError):  # nobody listens any more
            job.done(read)

    def _next(self) -> Job | None:
        """What is to be read next; None when there was nothing for a while, and the thread is to end."""
        with self._work:
            self._idle += 1
            found = self._work.wait_for(lambda: len(self._reads) > 0, LINGER)
            self._idle -= 1
            if found:
                job = self._reads.popleft()
                job.begun = time.monotonic()
                self._running.add(job)
                return job
            self._threads -= 1
            return None

    def _read(self, job: Job) -> tuple[AdapterRead, HostAdapter | None]:
        path = job.path
        with self._work:
            hangs = any(other.path == path for other in self._hung)
        if hangs:  # another thread would hang too
            return AdapterRead(job.uid, error=f'{path} {NO_ANSWER}'), None
        try:
            state = adapter_state(path)
            if job.known is not None and state != job.known:
                raise SwiftliteError(f'{path} has changed since the adapter was loaded; load it again.')
            copy = self._format.read(path)
            if adapter_state(path) != state:
                raise SwiftliteError(f'{path} was changed while it was read; load it again.')
        except SwiftliteError as error:
            return AdapterRead(job.uid, error=str(error)), None
        except Exception as error:  # whatever a disk or a library does costs this adapter alone
            traceback.print_exc()
            return AdapterRead(job.uid, error=f'{path} cannot be read ({type(error).__name__}: {error}).'), None
        return AdapterRead(job.uid, copy.rank, copy.num_bytes, state), copy
