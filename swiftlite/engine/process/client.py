"""The front process's end of an engine process: start it, talk to it, notice when it dies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import SwiftliteError
from ..config import EngineConfig
from ..errors import EngineDeadError, RequestError
from ..outputs import SequenceOutput
from .child import EngineProcess

LEAVING = 10.0  # seconds for a process that is ending to be gone by itself


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
    """One engine process. Callbacks run in the event loop: `on_outputs` (`outputs.pack`), `on_death(reason)` once.

    started: a process that is there already, and this one's from now on.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_outputs: Callable[[list[str], list[int], list[SequenceOutput]], None],
        on_death: Callable[[str], None],
        started: EngineProcess | None = None,
    ):
        self._engine = started or EngineProcess()
        self.process, self._channel = self._engine.process, self._engine.channel
        self._on_outputs, self._on_death = on_outputs, on_death
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[ModelInfo] = self._loop.create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._open, self._closed = True, False  # the channel; whether the end of the process is wanted
        self._death: str | None = None
        self._reaping: asyncio.Task[int] | None = None
        self._waiting: list[asyncio.Future[None]] = []  # for room in the channel
        self._loop.add_reader(self._channel.fileno(), self._read)
        self.send(config)

    @property
    def death(self) -> str | None:
        """Why the process ended, None while it runs."""
        return self._death

    async def ready(self) -> ModelInfo:
        """Wait until the model is loaded; SwiftliteError says why it cannot be."""
        return await self._ready

    def send(self, message: Any) -> None:
        """Send a message, or queue it; never blocks. One to a process that is gone is dropped: `_read` sees that."""
        if not self._open:
            return
        try:
            self._channel.send(message)
        except OSError:
            return
        if self._channel.unsent:
            self._loop.add_writer(self._channel.fileno(), self._write)

    async def room(self) -> None:
        """Wait until the process has read enough of what was sent to it, or is gone."""
        while self._death is None and self._open and self._channel.full:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    async def call(self, name: str, *args: Any) -> Any:
        """Run a method of the engine between two steps and return its result; RequestError if it refuses."""
        if self._death is not None:
            raise EngineDeadError(self._death)
        number = next(self._numbers)
        future = self._calls[number] = self._loop.create_future()
        self.send(('call', number, name, *args))
        return await future

    async def stop(self, drain: bool, timeout: float) -> None:
        """End the process: after its running requests (at most `timeout` seconds), or at once."""
        self._closed = True
        self.send(('stop', drain))
        await asyncio.to_thread(self._engine.reap, timeout if drain else 5.0)
        while self._open:  # the last answers; the process is gone, so this ends
            self._read()

    def kill(self) -> None:
        """End the process now; what it said last is lost."""
        self._closed = True
        self._hang_up()
        self._engine.kill()
        self._ended('The engine process was stopped.')

    async def reap(self) -> int:
        """Wait until the process, which is ending, is gone: killed, if it takes long. Its exit status."""
        if self._reaping is None:
            self._reaping = self._loop.create_task(asyncio.to_thread(self._engine.reap, LEAVING))
        return await asyncio.shield(self._reaping)

    def _write(self) -> None:
        try:
            self._channel.flush()
        except OSError:  # it is gone: `_read` sees that
            self._loop.remove_writer(self._channel.fileno())
            return
        if not self._channel.unsent:
            self._loop.remove_writer(self._channel.fileno())
        if not self._channel.full:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _read(self) -> None:
        alive = self._channel.read()
        while self._channel.complete:
            self._dispatch(self._channel.recv())
        if not alive and self._open:
            self._hang_up()
            self._task = self._loop.create_task(self._tell())

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._wake()

    async def _tell(self) -> None:
        """The process closed its end: it is gone, or about to be."""
        status = await self.reap()
        self._ended(f'The engine process ended unexpectedly (exit status {status}).')

    def _dispatch(self, message: tuple[Any, ...]) -> None:
        kind, *args = message
        if kind == 'outputs':
            self._on_outputs(*args)
        elif kind == 'reply':
            number, value, error = args
            future = self._calls.pop(number)
            if not future.done():
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(RequestError(error))
        elif kind in ('ready', 'failed'):
            if self._ready.done():
                return  # nobody waits for it: the server is ended while it starts
            if kind == 'ready':
                self._ready.set_result(ModelInfo(**args[0]))
            else:
                self._closed = True  # it ends now, and who waits for it knows why
                self._ready.set_exception(SwiftliteError(args[0]))
        elif kind == 'dead':
            self._ended(f'The engine stopped: {args[0]}')

    def _ended(self, reason: str) -> None:
        if self._death is not None:
            return
        self._death = reason
        self._wake()
        if not self._ready.done():
            self._ready.set_exception(EngineDeadError(reason))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDeadError(reason))
        self._calls.clear()
        if not self._closed:
            self._on_death(reason)
