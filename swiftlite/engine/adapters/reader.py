"""Adapters are read in threads of their own, beside the steps."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...checkpoint.adapter import AdapterState, adapter_state
from ...errors import SwiftliteError
from .host import AdapterFormat, HostAdapter

READERS = 4  # what they do is mostly done without the interpreter's lock
LINGER = 1.0  # seconds that one waits for more; to start another would hold up the step
LOOK = 1.0  # seconds between two looks at what is being read
SLOW = 10.0  # seconds after which a read does not keep another from starting
GIVE_UP = 300.0  # seconds after which it has failed
MOST_READERS = 64  # with those that hang
CLOSING = 5.0  # seconds for reads to end in when the interpreter does
NO_ANSWER = f'has not been read within {GIVE_UP:g} s: does its disk answer?'


@dataclass(frozen=True)
class AdapterRead:
    """What came of reading an adapter: its rank and its size in host memory, or why it cannot be used."""

    uid: int
    rank: int = 0
    num_bytes: int = 0
    state: AdapterState = ()
    error: str | None = None


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
        atexit.register(_close, weakref.ref(self))

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

    def close(self) -> None:
        """Read nothing more, and wait a little for what is being read.

        A thread that is in a library's code when the interpreter ends takes the whole process down with it.
        """
        with self._work:
            self._reads.clear()
            self._work.wait_for(lambda: not self._running, CLOSING)

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
                self._work.notify_all()
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


def _close(reader: weakref.ref[AdapterReader]) -> None:
    if (found := reader()) is not None:
        found.close()
