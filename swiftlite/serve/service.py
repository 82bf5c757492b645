"""What every endpoint works with: the engine, the template, the names, and the requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from swiftlite.engine.outputs import RequestOutput
from swiftlite.engine.process.async_engine import AsyncEngine
from swiftlite.engine.request import LoRARequest
from swiftlite.engine.sampling_params import MAX_LOGPROBS, SamplingParams
from swiftlite.serve.errors import ApiError
from swiftlite.serve.metrics import Metrics
from swiftlite.serve.models_list import ServedModel, ServedModels
from swiftlite.serve.sampling import sample
from swiftlite.template import Template

T = TypeVar('T')

MAX_SEQUENCES = 16384
MAX_NUMBERS = 1 << 25  # of all sequences of a request; the engine holds about 40 bytes for each
INLINE_ENCODE = 20_000  # characters; longer prompts are tokenized beside the event loop


@dataclass(frozen=True)
class Limits:
    """What the server takes. None: no limit. `max_queued_requests`: beyond the batch; `request_timeout`: seconds."""

    max_queued_requests: int | None = None
    request_timeout: float | None = None
    max_body_bytes: int = 32 * 2**20
    max_logprobs: int = MAX_LOGPROBS  # a token; -1: the whole vocabulary


@dataclass(frozen=True, eq=False)
class Job:
    """The sequences of one HTTP request: every prompt n times. Choice i is sample i % n of prompt i // n."""

    id: str
    model: ServedModel
    prompts: list[list[int]]
    params: list[SamplingParams]  # one a prompt
    n: int = 1
    cache_salt: str | None = None
    prompt_only: bool = False  # the one token that is made is not shown

    def __post_init__(self) -> None:
        if self.size > MAX_SEQUENCES:
            raise ApiError(f'The request asks for {self.size} sequences; the most is {MAX_SEQUENCES}.', param='n')
        numbers = self.n * sum(len(ids) + _tables(p) for ids, p in zip(self.prompts, self.params, strict=True))
        if numbers > MAX_NUMBERS:
            raise ApiError(
                f'The request asks for {self.size} sequences that hold {numbers} token ids together, in prompts and '
                f'parameters; the most is {MAX_NUMBERS}: send several requests.',
                param='n',
            )

    @property
    def size(self) -> int:
        return len(self.prompts) * self.n


def _tables(params: SamplingParams) -> int:
    """Token ids that the parameters of one sequence hold."""
    lists = (params.allowed_token_ids, params.logit_bias, params.stop_token_ids)
    return sum(len(ids) for ids in lists if ids) + sum(map(len, params.bad_words_token_ids or ()))


@dataclass
class Service:
    """One served model. `defaults`: sampling defaults of the checkpoint; `template`: None for a model without chat."""

    engine: AsyncEngine
    models: ServedModels
    template: Template | None
    defaults: dict[str, Any] = field(default_factory=dict)
    lora_enabled: bool = False
    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call; '*' for all
    metrics: Metrics = field(init=False)
    changing: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)  # by adapter's name
    numbers: Iterator[int] = field(default_factory=itertools.count)
    running: dict[Job, Callable[[ApiError], None]] = field(default_factory=dict)  # how to cut each request short

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models.base.name)
        self.engine.on_lora_lost = self._lost

    @property
    def max_model_len(self) -> int:
        return self.engine.model_config.max_model_len

    @property
    def vocab_size(self) -> int:
        return self.engine.model_config.vocab_size

    def change_of(self, name: str) -> asyncio.Lock:
        """Held while the adapter of that name is loaded, replaced or unloaded; others do not wait for it."""
        return self.changing.setdefault(name, asyncio.Lock())

    def _lost(self, lora: LoRARequest) -> None:
        self.models.forget(lora)
        if self.models.adapter(lora.lora_name) is None:
            self.metrics.forget(lora.lora_name)

    def require_template(self) -> Template:
        if self.template is None:
            raise ApiError(f'{self.models.base.name} has no chat template; use /v1/completions.')
        return self.template

    async def encode_chat(self, messages: list[dict[str, Any]], **options: Any) -> list[int]:
        """Messages → token ids through the template. ApiError (400) where the template refuses them."""
        template = self.require_template()
        size = len(repr(messages)) + len(repr(options.get('tools')))  # calls, thoughts and schemas are text as well
        return await beside_if_long(size, lambda: template.encode(messages, **options))

    def text_ids(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Plain text → token ids, for completions and /tokenize; long ones not in the event loop."""
        return list(self.engine.tokenizer(text, add_special_tokens=add_special_tokens)['input_ids'])

    async def generate(self, job: Job) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Yield (choice index, what is new in it) until all are finished. Closing the iterator aborts the rest."""
        streams = [self._sequence(job, index) for index in range(job.size)]
        async with contextlib.aclosing(streams[0] if job.size == 1 else merge(streams)) as outputs:
            async for item in outputs:
                yield item

    async def _sequence(self, job: Job, index: int) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        lora = job.model.lora
        if lora is not None:
            now = self.models.adapter(lora.lora_name)  # other weights may have taken its name meanwhile
            if now is None:
                raise ApiError(f"The lora adapter '{lora.lora_name}' was unloaded.", status=404, param='model')
            lora = now.lora
        prompt, number = divmod(index, job.n)
        outputs = self.engine.generate(
            job.prompts[prompt],
            sample(job.params[prompt], number),
            request_id=f'{job.id}-{index}-{next(self.numbers)}',  # a client may use its id again at once
            lora_request=lora,
            cache_salt=job.cache_salt,
        )
        watch = self.metrics.sequence(len(job.prompts[prompt]), lora.lora_name if lora is not None else None)
        async with contextlib.aclosing(outputs):  # type: ignore[type-var]
            async for output in outputs:
                watch.step(output)
                yield index, output

    def check_engine(self) -> None:
        """Raise 503 while there is no engine process."""
        if not self.engine.alive:
            raise ApiError('The engine is not running; it is being started again or gave up (see the log).', status=503)

    def check_room(self, size: int = 1) -> None:
        """Raise 429 where `size` more sequences would wait in a queue that is full, 400 where they never fit."""
        waiting = self.limits.max_queued_requests
        if waiting is None:
            return
        room = self.engine.model_config.max_num_seqs + waiting
        if size > room:
            raise ApiError(
                f'The request asks for {size} sequences; this server takes at most {room} at a time.', param='n'
            )
        if sum(job.size for job in self.running) + size > room:
            raise ApiError(
                f'The server is busy: {waiting} requests are waiting, which is the most it lets wait. Try again later.',
                status=429,
                headers={'Retry-After': '1'},
            )

    def interrupt(self, reason: str) -> None:
        """End every request in flight with a 503 (or an SSE error event) that gives `reason`."""
        for cut in list(self.running.values()):
            cut(ApiError(reason, status=503))


async def merge(streams: list[AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
    """Items of all streams as they come. The first error ends all; closing the iterator closes every stream.

    A reader who is slow holds the streams up: as many items wait for it as there are streams.
    """
    queue: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue(len(streams))
    end = object()

    async def pump(stream: AsyncGenerator[Any, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for item in stream:
                    await queue.put((item, None))
            await queue.put((end, None))
        except Exception as error:
            await queue.put((end, error))

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    try:
        running = len(tasks)
        while running:
            item, error = await queue.get()
            if error is not None:
                raise error
            if item is end:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def beside_if_long(size: int, encode: Callable[[], T]) -> T:
    """The result of `encode`, which reads `size` characters or numbers: in a thread where that takes long."""
    return encode() if size <= INLINE_ENCODE else await asyncio.to_thread(encode)
