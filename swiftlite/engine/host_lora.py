"""Adapters in host memory, in the layout of the pools: read and checked once, then a few copies away from a device."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from ..checkpoint.adapter import AdapterState, LoRAWeights, adapter_state
from ..checkpoint.adapter_files import AdapterFiles, read_files
from ..checkpoint.flat_file import largest
from ..checkpoint.tensors import all_finite
from ..errors import SwiftliteError
from ..layers.vocab_lora import VocabPair
from .adapter_layout import BLOCK, Array, Group, Layout, LayoutMaker

VOCAB = ('model.embed_tokens', 'lm_head')
READERS = 4  # what they do is mostly done without the interpreter's lock
LINGER = 1.0  # seconds that one waits for more; to start another would hold up the step
LOOK = 1.0  # seconds between two looks at what is being read
SLOW = 10.0  # seconds after which a read does not keep another from starting
GIVE_UP = 300.0  # seconds after which it has failed
MOST_READERS = 64  # with those that hang
NO_ANSWER = f'has not been read within {GIVE_UP:g} s: does its disk answer?'
SHAPES = 64  # kinds of adapters whose layouts are kept


@dataclass(frozen=True)
class AdapterRead:
    """What came of reading an adapter: its rank and its size in host memory, or why it cannot be used."""

    uid: int
    rank: int = 0
    num_bytes: int = 0
    state: AdapterState = ()
    error: str | None = None


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
