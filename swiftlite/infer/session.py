"""One partner to talk to: an engine in this process, a template, sampling values and at most one adapter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.engine.engine import Engine
from swiftlite.engine.errors import RequestError
from swiftlite.engine.output_processor import RequestState
from swiftlite.engine.outputs import CompletionOutput
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import UsageError
from swiftlite.infer.setup import Setup

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None


def never() -> bool:
    return False


class Session:
    """The model that `setup` describes, ready to answer; `args` holds the sampling values that were typed."""

    def __init__(self, setup: Setup, args: InferArgs) -> None:
        if len(setup.adapters) > 1:
            raise UsageError(
                f'infer answers with one adapter, not with {" and ".join(setup.adapters)}: '
                "use 'swiftlite deploy' for several"
            )
        self.name = setup.source.name
        self.lora = next((LoRARequest(name, 1, path) for name, path in setup.adapters.items()), None)
        self._engine = Engine(setup.config)
        if self.lora is not None:
            self._engine.add_lora(self.lora)
        self._tokenizer = load_tokenizer(self._engine.model_config.tokenizer)
        self.template = setup.template(self._tokenizer)
        self._sampling = sampling(args, setup.defaults)
        self._max_new_tokens = args.max_new_tokens
        self._ids = itertools.count()

    @property
    def max_model_len(self) -> int:
        return self._engine.model_config.max_model_len

    def encode(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Token ids of a conversation; RequestError if it leaves no room for an answer."""
        ids = self.template.encode(messages, tools=tools)
        if len(ids) >= self.max_model_len:
            raise RequestError(
                f'the conversation has {len(ids)} tokens, but the model takes {self.max_model_len} in all'
            )
        return ids

    def params(self, prompt: Sequence[int]) -> SamplingParams:
        """Sampling of the answer to `prompt`: at most --max_new_tokens, and what the context has left."""
        values = self._sampling | {'stop': [*self._sampling['stop'], *self.template.stop_strings]}
        return SamplingParams(
            **values,
            max_tokens=min(self._max_new_tokens, self.max_model_len - len(prompt)),
            stop_token_ids=list(self.template.stop_token_ids),
        )

    def answer(
        self, prompts: Sequence[list[int]], interrupted: Callable[[], bool] = never
    ) -> Iterator[tuple[int, CompletionOutput]]:
        """(which prompt, what is new in its answer), until all are finished or `interrupted` between two steps."""
        running: dict[str, tuple[int, RequestState]] = {}
        try:
            for index, prompt in enumerate(prompts):
                request = EngineRequest(f'infer-{next(self._ids)}', prompt, self.params(prompt), self.lora)
                self._engine.add_request(request)
                running[request.request_id] = index, RequestState(request, self._tokenizer)
            while running and not interrupted():
                for output in self._engine.step():
                    if output.request_id not in running:
                        continue
                    index, state = running[output.request_id]
                    delta = state.update(output)
                    if state.finished:
                        del running[output.request_id]
                    if state.stopped:
                        self._engine.abort(output.request_id)
                    yield index, delta
        finally:
            for request_id in running:
                self._engine.abort(request_id)

    def close(self) -> None:
        self._engine.shutdown()


def sampling(args: InferArgs, defaults: dict[str, Any]) -> dict[str, Any]:
    """SamplingParams fields: what was typed, else the checkpoint's; --do_sample false takes the likeliest token."""
    typed = {
        'temperature': args.temperature,
        'top_k': args.top_k,
        'top_p': args.top_p,
        'repetition_penalty': args.repetition_penalty,
    }
    values = defaults | {name: value for name, value in typed.items() if value is not None}
    if args.do_sample is False:
        values['temperature'] = 0.0
    elif args.do_sample and args.temperature is None and not values.get('temperature', 1.0):
        values['temperature'] = 1.0  # the checkpoint is greedy by default
    return values | {'stop': list(args.stop_words)}
