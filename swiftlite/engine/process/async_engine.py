"""`AsyncEngine`: requests from an event loop to an engine process, text back; restarts the process if it dies."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoint.tokenizer import load_tokenizer
from ...errors import SwiftliteError
from ..config import EngineConfig
from ..errors import EngineDeadError, RequestError
from ..output_processor import RequestState
from ..outputs import RequestOutput, SequenceOutput
from ..request import EngineRequest, LoRARequest
from ..sampling_params import SamplingParams
from .child import EngineProcess
from .client import EngineClient, ModelInfo
from .inbox import Inbox

MAX_RESTARTS = 3  # within RESTART_WINDOW seconds; then the engine stays dead
RESTART_WINDOW = 300.0
PAUSE = 1.0  # seconds before the second restart within it, twice as many before the third


class AsyncEngine:
    """The engine as a server uses it. Create with `await AsyncEngine.start(config)`.

    The process loop runs elsewhere; tokenizer and detokenization live here. When the process dies, running requests
    end with EngineDeadError and a new process is started with the same adapters.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.on_lora_lost: Callable[[LoRARequest], None] = lambda request: None  # it could not be loaded again
        self.tokenizer: Any = None
        self.model_config: ModelInfo
        self._client: EngineClient
        # a caller may use an id again while the engine still speaks of the request that had it
        self._names: dict[str, str] = {}  # request id → the engine's name for it
        self._numbers = itertools.count()
        self._inboxes: dict[str, Inbox] = {}  # by the engine's name
        self._loras: dict[int, LoRARequest] = {}
        self._dead: str | None = None
        self._restarts: list[float] = []
        self._restarting: asyncio.Task[None] | None = None
        self._stopping = False
        self._asking: asyncio.Future[dict[str, Any]] | None = None  # for statistics

    @classmethod
    async def start(cls, config: EngineConfig, process: EngineProcess | None = None) -> AsyncEngine:
        """Start the engine process and wait until it is ready; SwiftliteError if the model cannot be loaded.

        process: one that was started before, and is the engine's from now on.
        """
        self = cls(config)
        self._stopping = True  # a process that dies before it was ready is not started again
        self._client = self._connect(process)
        folder = config.tokenizer or config.model
        early = None
        if not config.skip_tokenizer_init and Path(folder).is_dir():  # while the process loads the weights
            early = asyncio.create_task(asyncio.to_thread(load_tokenizer, folder))
        try:
            self.model_config = await self._client.ready()
            self._stopping = False
            path = self.model_config.tokenizer
            if early is not None and path == folder:
                self.tokenizer = await early
            elif not config.skip_tokenizer_init:
                self.tokenizer = load_tokenizer(path)
        except BaseException:
            self._client.kill()
            raise
        finally:
            if early is not None:
                await asyncio.gather(early, return_exceptions=True)
        return self

    @property
    def alive(self) -> bool:
        """False from the engine process's death until its successor is ready."""
        return self._dead is None

    async def generate(
        self,
        prompt: list[int],
        sampling_params: SamplingParams,
        request_id: str,
        lora_request: LoRARequest | None = None,
        *,
        cache_salt: str | None = None,
    ) -> AsyncIterator[RequestOutput]:
        """Deltas of one answer (n = 1). RequestError if it cannot run, EngineDeadError if the engine dies.

        Leaving the iteration early aborts the request and frees its blocks within a step.
        """
        if sampling_params.n != 1:
            raise RequestError('AsyncEngine.generate answers once (n = 1); start one request an answer.')
        if self._dead is not None:
            raise EngineDeadError(self._dead)
        if request_id in self._names:
            raise RequestError(f"request id '{request_id}' is already running.")
        sampling_params.update_from_tokenizer(self.tokenizer)
        prompt = sampling_params.truncate(prompt, self.model_config.max_model_len)
        request = EngineRequest(request_id, prompt, sampling_params, lora_request, cache_salt)
        state = RequestState(request, self.tokenizer)
        name = self._names[request_id] = str(next(self._numbers))
        inbox = self._inboxes[name] = Inbox(name)
        client, ended = self._client, True
        try:
            await client.room()  # who leaves meanwhile has sent nothing
            if not inbox.over:
                client.send(('add', replace(request, request_id=name)))
                ended = False
            while not state.finished:
                try:
                    out = await inbox.get()
                except EngineDeadError:
                    ended = True
                    raise
                ended = out.finish_reason is not None
                if out.error is not None:
                    raise RequestError(out.error)
                delta = state.update(out)
                yield state.wrap(delta)
        finally:
            del self._names[request_id], self._inboxes[name]
            if not ended:
                client.send(('abort', name))

    async def abort(self, request_id: str) -> None:
        """End a request with finish_reason 'abort'; unknown ids are ignored."""
        name = self._names.get(request_id)
        if name is not None:
            self._client.send(('abort', name))
            self._inboxes[name].put(SequenceOutput(name, [], finish_reason='abort'))

    async def add_lora(self, request: LoRARequest) -> None:
        """Load an adapter, or replace the one of the same id; RequestError says why it does not fit."""
        await self._call('add_lora', request)
        self._loras[request.lora_int_id] = request

    async def remove_lora(self, int_id: int) -> bool:
        """Forget an adapter; requests that run on it finish."""
        self._loras.pop(int_id, None)
        found = await self._call('remove_lora', int_id)
        self._loras.pop(int_id, None)  # its load was answered meanwhile
        return found

    async def stats(self) -> dict[str, Any]:
        """The engine's counters and gauges (Engine.stats); who asks while another waits for them gets the same."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._call('stats'))
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be left
        return await asyncio.shield(self._asking)

    async def shutdown(self, drain: bool = True, timeout: float = 30.0) -> None:
        """End the process, after its running requests if `drain` (at most `timeout` seconds)."""
        self._stopping = True
        if self._restarting is not None:
            self._restarting.cancel()
        await self._client.stop(drain and self.alive, timeout)
        self._dead = 'The server is shutting down.'
        self._fail_all(self._dead)

    def _connect(self, process: EngineProcess | None = None) -> EngineClient:
        return EngineClient(self.config, self._deliver, self._died, process)

    def _deliver(self, ids: list[str], tokens: list[int], rest: list[SequenceOutput]) -> None:
        inboxes = self._inboxes
        for request_id, token in zip(ids, tokens, strict=True):
            if (inbox := inboxes.get(request_id)) is not None:
                inbox.put_token(token)
        for out in rest:
            if (inbox := inboxes.get(out.request_id)) is not None:
                inbox.put(out)

    async def _call(self, name: str, *args: Any) -> Any:
        if self._dead is not None:
            raise EngineDeadError(self._dead)
        return await self._client.call(name, *args)

    def _fail_all(self, reason: str) -> None:
        for inbox in self._inboxes.values():
            inbox.fail(EngineDeadError(reason))

    def _died(self, reason: str) -> None:
        self._dead = reason
        self._fail_all(reason)
        if self._stopping or self._restarting is not None:
            return
        now = time.monotonic()
        self._restarts = [t for t in self._restarts if now - t < RESTART_WINDOW] + [now]
        if len(self._restarts) > MAX_RESTARTS:
            print(
                f'{reason} It died {len(self._restarts)} times in {RESTART_WINDOW:.0f} s and is not started again.',
                file=sys.stderr,
            )
            return
        print(f'{reason} Starting it again.', file=sys.stderr, flush=True)
        self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def _load_again(self, request: LoRARequest) -> None:
        try:
            await self._client.call('add_lora', request)
            if request.lora_int_id not in self._loras:  # it was removed meanwhile
                await self._client.call('remove_lora', request.lora_int_id)
        except RequestError as error:
            self._loras.pop(request.lora_int_id, None)
            self.on_lora_lost(request)
            print(f"Adapter '{request.lora_name}' was not loaded again: {error}", file=sys.stderr, flush=True)

    async def _restart(self) -> None:
        died = None
        try:
            await self._client.reap()  # until then it has its device's memory
            await asyncio.sleep(PAUSE * (len(self._restarts) - 1))  # what is short may come back
            self._client = self._connect()
            self.model_config = await self._client.ready()
            await asyncio.gather(*map(self._load_again, list(self._loras.values())))
            if self._client.death is not None:
                raise EngineDeadError(self._client.death)
            self._dead = None
            print('The engine is ready again.', file=sys.stderr, flush=True)
        except SwiftliteError as error:
            died = str(error)
        except OSError as error:
            died = f'The engine process could not be started ({error.strerror or error}).'
        finally:
            self._restarting = None
        if died is not None:
            self._died(died)
