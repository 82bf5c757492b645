"""One partner to talk to: an engine in this process, a template, sampling values, and an adapter or none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.engine.engine import Engine
from swiftlite.engine.errors import RequestError
from swiftlite.engine.output_processor import RequestState
from swiftlite.engine.outputs import CompletionOutput, TokenLogprobs
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import UsageError, nearest
from swiftlite.infer.setup import Setup, sampling

if TYPE_CHECKING:
    from swiftlite.args.groups import GenerationArgs

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None


def never() -> bool:
    return False


class Session:
    """The model that `setup` describes, ready to answer; `args` holds the sampling values that were typed.

    All adapters are loaded; the first answers until `use` names another.
    """

    def __init__(self, setup: Setup, args: GenerationArgs) -> None:
        self.name = setup.source.name
        self.loras = {name: LoRARequest(name, id, path) for id, (name, path) in enumerate(setup.adapters.items(), 1)}
        self.lora = next(iter(self.loras.values()), None)
        self._engine = Engine(setup.config)
        try:
            for lora in self.loras.values():
                self._engine.add_lora(lora)
        except BaseException:
            self._engine.shutdown()
            raise
        self._tokenizer = load_tokenizer(self._engine.model_config.tokenizer)
        self.template = setup.template(self._tokenizer)
        self._sampling = sampling(args, setup.defaults)
        self._max_new_tokens = args.max_new_tokens
        self._ids = itertools.count()

    @property
    def partner(self) -> str:
        """Who answers, in words."""
        return f'{self.name} with {self.lora.lora_name}' if self.lora else self.name

    def use(self, name: str | None) -> None:
        """Answer with the adapter `name` from now on, with the base model for None. UsageError for another name."""
        if name is not None and name not in self.loras:
            known = ', '.join(self.loras) or 'none'
            raise UsageError(f"there is no adapter '{name}': loaded are {known}{nearest(name, self.loras)}")
        self.lora = self.loras[name] if name is not None else None

    @property
    def max_model_len(self) -> int:
        return self._engine.model_config.max_model_len

    def encode(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Token ids of a conversation; RequestError if it leaves no room for an answer."""
        ids = self.template.encode(messages, tools=tools)
        self.check_length(ids)
        return ids

    def check_length(self, ids: Sequence[int]) -> None:
        """RequestError if `ids` leave no room for another token."""
        if len(ids) >= self.max_model_len:
            raise RequestError(
                f'the conversation has {len(ids)} tokens, but the model takes {self.max_model_len} in all'
            )

    def params(self, prompt: Sequence[int], seed: int | None = None) -> SamplingParams:
        """Sampling of the answer to `prompt`: at most --max_new_tokens, and what the context has left.

        seed: makes the answer's random numbers its own, whatever was answered before.
        """
        values = self._sampling | {'stop': [*self._sampling['stop'], *self.template.stop_strings]}
        return SamplingParams(
            **values,
            max_tokens=min(self._max_new_tokens, self.max_model_len - len(prompt)),
            stop_token_ids=list(self.template.stop_token_ids),
            seed=seed,
        )

    def answer(
        self,
        prompts: Sequence[list[int]],
        interrupted: Callable[[], bool] = never,
        seeds: Sequence[int] | None = None,
        at_once: int | None = None,
    ) -> Iterator[tuple[int, CompletionOutput]]:
        """(which prompt, what is new in its answer), until all are finished or `interrupted` between two steps.

        seeds: one for each prompt. at_once: so many are in the engine at a time; None: all.
        """
        running: dict[str, tuple[int, RequestState]] = {}
        waiting = iter(enumerate(prompts))
        try:
            while not interrupted():
                for index, prompt in itertools.islice(waiting, None if at_once is None else at_once - len(running)):
                    params = self.params(prompt, seeds[index] if seeds is not None else None)
                    request = EngineRequest(f'infer-{next(self._ids)}', prompt, params, self.lora)
                    self._engine.add_request(request)
                    running[request.request_id] = index, RequestState(request, self._tokenizer)
                if not running:
                    break
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

    def score(self, rows: Sequence[list[int]], at_once: int | None = None) -> Iterator[tuple[int, list[TokenLogprobs]]]:
        """(which row, the log-probability and rank of each of its tokens but the first), as they come."""
        waiting = iter(enumerate(rows))
        running: dict[str, int] = {}
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        try:
            while True:
                for index, ids in itertools.islice(waiting, None if at_once is None else at_once - len(running)):
                    request = EngineRequest(f'score-{next(self._ids)}', ids, params, self.lora)
                    self._engine.add_request(request)
                    running[request.request_id] = index
                if not running:
                    return
                for output in self._engine.step():
                    if output.request_id in running and output.prompt_logprobs is not None:
                        yield running.pop(output.request_id), output.prompt_logprobs
        finally:
            for request_id in running:
                self._engine.abort(request_id)

    def close(self) -> None:
        self._engine.shutdown()
