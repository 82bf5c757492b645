"""Tries grammars in a process of its own. Started with `python -m swiftlite.engine.grammar.guard FD SECONDS`.

A grammar that overflows the stack, eats memory or takes minutes to compile does so here: it ends this process, and the
one that asked goes on. In: the vocabulary as (tokenizer.json, end tokens), then one StructuredOutputsParams after the
other. Out: for each, what is wrong with it, or None.
"""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from ...errors import SwiftliteError
from ..errors import RequestError
from .compiler import Grammar, Vocabulary, build
from .params import StructuredOutputsParams

SECONDS = 3.0  # of a processor, to compile a grammar and take a few steps in it
PATIENCE = 10.0  # times as long to wait, on a busy machine
START_SECONDS = 60.0  # to start and read the vocabulary
MEMORY = 4 << 30  # bytes of address space beyond what the vocabulary took
STEPS = 12


class GrammarGuard:
    """The other process; it is started when the first grammar comes, and again after one that ended it."""

    def __init__(self, vocabulary: Callable[[], tuple[str, list[int]]], seconds: float = SECONDS):
        self._vocabulary, self._seconds = vocabulary, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._conn: Connection
        self._closed = False

    def check(self, params: StructuredOutputsParams) -> None:
        """RequestError if the grammar cannot be used, or not within the limits."""
        vocabulary = self._vocabulary()
        with self._lock:
            if self._closed:
                raise RequestError(f'{params.kind} cannot be used: the engine was shut down.')
            try:
                if self._process is None or self._process.poll() is not None:
                    self._stop()
                    self._start(vocabulary)
            except (EOFError, OSError):
                self._stop()
                raise SwiftliteError(f'{params.kind} cannot be used now: its compiler did not start.') from None
            try:
                self._conn.send(params)
                if not self._conn.poll(PATIENCE * self._seconds):
                    raise EOFError
                problem = self._conn.recv()
            except (EOFError, OSError):
                self._stop()
                problem = f'{params.kind} cannot be used: it is too complex to compile.'
        if problem is not None:
            raise RequestError(problem)

    def close(self) -> None:
        """End the process, also while it is asked; it is not started again."""
        self._closed = True
        while not self._lock.acquire(timeout=0.05):
            if (process := self._process) is not None:
                process.kill()  # who waits for its answer learns of it
        self._stop()
        self._lock.release()

    def __del__(self) -> None:
        self._stop()

    def _start(self, vocabulary: tuple[str, list[int]]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._conn = Connection(ours.detach())
            module = 'swiftlite.engine.grammar.guard'
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, str(theirs.fileno()), str(self._seconds)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what native code says when it dies
                process_group=0,  # Ctrl-C in a terminal is for the process that asks
            )
        self._conn.send(vocabulary)
        if not self._conn.poll(START_SECONDS):
            raise EOFError
        problem = self._conn.recv()
        if problem is not None:
            self._stop()
            raise RequestError(problem)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._conn.close()
            self._process = None


def try_out(grammar: Grammar) -> str | None:
    """Take a few steps; what goes wrong, because what is built on the way may be too large as well."""
    rng = random.Random(0)
    for _ in range(STEPS):
        allowed = np.unpackbits(grammar.mask().view(np.uint8), bitorder='little').nonzero()[0]
        if not len(allowed):
            break
        grammar.advance(int(rng.choice(allowed)))
    return grammar.error


def serve(conn: Connection, seconds: float) -> None:
    """Answer until the pipe closes. A grammar that takes longer than `seconds` ends the process."""
    try:
        vocabulary = Vocabulary(*conn.recv())
    except ValueError as error:
        conn.send(f'structured output cannot be used: llguidance does not read this tokenizer ({error}).')
        return
    with open('/proc/self/statm', encoding='ascii') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    conn.send(None)
    while True:
        params = conn.recv()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            problem = try_out(build(params, vocabulary))
            problem = problem and f'{params.kind} cannot be used: {problem}.'
        except RequestError as error:
            problem = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        conn.send(problem)


if __name__ == '__main__':
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
