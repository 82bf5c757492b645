"""The front process's end of an engine process: start it, talk to it, notice when it dies."""

from __future__ import annotations

import asyncio
import itertools
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ..errors import SwiftliteError
from .config import EngineConfig
from .errors import EngineDeadError, RequestError
from .outputs import SequenceOutput


@dataclass(frozen=True)
class ModelInfo:
    """What the engine process says of the model it loaded."""

    max_model_len: int
    max_num_seqs: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    dtype: str
    device: str
    path: str
    tokenizer: str
    num_blocks: int
    block_size: int


class EngineClient:
    """One engine process. Callbacks run in the event loop: `on_outputs(list)`, `on_death(reason)` once."""

    def __init__(
        self, config: EngineConfig, on_outputs: Callable[[list[SequenceOutput]], None], on_death: Callable[[str], None]
    ):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'swiftlite.engine.process', str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in a terminal is for the front process
        )
        theirs.close()
        self._conn = Connection(ours.detach())
        self._on_outputs, self._on_death = on_outputs, on_death
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[ModelInfo] = self._loop.create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self._death: str | None = None
        self._outbox.put(config)
        threading.Thread(target=self._write, daemon=True, name='engine-write').start()
        threading.Thread(target=self._read, daemon=True, name='engine-read').start()

    @property
    def death(self) -> str | None:
        """Why the process ended, None while it runs."""
        return self._death

    async def ready(self) -> ModelInfo:
        """Wait until the model is loaded; SwiftliteError says why it cannot be."""
        return await self._ready

    def send(self, *message: Any) -> None:
        """Queue a message; never blocks."""
        self._outbox.put(message)

    async def call(self, name: str, *args: Any) -> Any:
        """Run a method of the engine between two steps and return its result; RequestError if it refuses."""
        if self._death is not None:
            raise EngineDeadError(self._death)
        number = next(self._numbers)
        future = self._calls[number] = self._loop.create_future()
        self.send('call', number, name, *args)
        return await future

    async def stop(self, drain: bool, timeout: float) -> None:
        """End the process: after its running requests (at most `timeout` seconds), or at once."""
        self._closed = True
        self.send('stop', drain)
        try:
            await asyncio.wait_for(asyncio.to_thread(self.process.wait), timeout if drain else 5.0)
        except TimeoutError:
            self.kill()
        self._outbox.put(None)

    def kill(self) -> None:
        """End the process now."""
        self._closed = True
        self.process.kill()
        self.process.wait()

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._conn.send(message)
            except OSError:
                return  # the reading thread sees the same end and reports it

    def _read(self) -> None:
        try:
            while True:
                message = self._conn.recv()
                self._post(self._dispatch, message)
        except (EOFError, OSError):
            status = self.process.wait()
            self._outbox.put(None)
            self._post(self._ended, f'The engine process ended unexpectedly (exit status {status}).')

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    def _dispatch(self, message: tuple[Any, ...]) -> None:
        kind, *args = message
        if kind == 'outputs':
            self._on_outputs(args[0])
        elif kind == 'reply':
            number, value, error = args
            future = self._calls.pop(number)
            if not future.done():
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(RequestError(error))
        elif kind == 'ready':
            self._ready.set_result(ModelInfo(**args[0]))
        elif kind == 'failed':
            self._ready.set_exception(SwiftliteError(args[0]))
        elif kind == 'dead':
            self._ended(f'The engine stopped: {args[0]}')

    def _ended(self, reason: str) -> None:
        if self._death is not None:
            return
        self._death = reason
        if not self._ready.done():
            self._ready.set_exception(EngineDeadError(reason))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDeadError(reason))
        self._calls.clear()
        if not self._closed:
            self._on_death(reason)
