"""The front process's end of an engine process: start it, talk to it, notice when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import SwiftliteError
from ..config import EngineConfig
from ..errors import EngineDeadError, RequestError
from ..outputs import SequenceOutput
from .child import EngineProcess


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
        started = started or EngineProcess()
        self.process, self._channel = started.process, started.channel
        self._on_outputs, self._on_death = on_outputs, on_death
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[ModelInfo] = self._loop.create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._open, self._closed = True, False  # the channel; whether the end of the process is wanted
        self._death: str | None = None
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
        try:
            await asyncio.wait_for(asyncio.to_thread(self.process.wait), timeout if drain else 5.0)
        except TimeoutError:
            self.kill()
        while self._open:  # the last answers; the process is gone, so this ends
            self._read()

    def kill(self) -> None:
        """End the process now; what it said last is lost."""
        self._closed = True
        self.process.kill()
        self.process.wait()
        self._hang_up()
        self._ended('The engine process was stopped.')

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.flush()
            if self._channel.unsent:
                return
        self._loop.remove_writer(self._channel.fileno())

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

    async def _tell(self) -> None:
        """The process closed its end: it is gone, or about to be."""
        status = await asyncio.to_thread(self.process.wait)
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
