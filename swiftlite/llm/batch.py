"""`inference` and `inference_stream`: requests in ms-swift's shape → responses, all in one batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from swiftlite.engine.errors import RequestError
from swiftlite.engine.outputs import CompletionOutput
from swiftlite.engine.request import LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import SwiftliteError
from swiftlite.llm.engine import ModelEngine
from swiftlite.llm.generation import GenerationConfig
from swiftlite.llm.prompt import request_messages
from swiftlite.template import Template

Requests = Sequence[Mapping[str, Any]]
LoRAs = LoRARequest | Sequence[LoRARequest | None] | None


def inference(
    llm_engine: ModelEngine,
    template: Template,
    request_list: Requests,
    *,
    generation_config: GenerationConfig | None = None,
    lora_request: LoRAs = None,
    use_tqdm: bool = False,
    verbose: bool = False,
    prompt_prefix: str = '[PROMPT]',
    output_prefix: str = '[OUTPUT]',
    generation_info: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Answer requests together; ``[{'response': text, 'history': pairs with the new one last}]`` in their order.

    A request is {'query': text, 'history': [[query, response], …], 'system': text}; the last two may be missing, and no
    request is changed. generation_config: the engine's own where none is given. lora_request: one for all, or a list of
    the requests' length. verbose prints each prompt and its answer. generation_info is filled with num_prompt_tokens,
    num_generated_tokens, num_samples, runtime (seconds), samples/s and tokens/s (generated ones).

    Raises SwiftliteError, one sentence that names the request, before anything has run.
    """
    batch = _Batch(llm_engine, template, request_list, generation_config, lora_request)
    for _ in batch.run(stream=False, use_tqdm=use_tqdm):
        pass
    batch.report(generation_info)
    if verbose:
        for prompt, total in zip(batch.prompts, batch.totals, strict=True):
            print(f'{prompt_prefix}{llm_engine.hf_tokenizer.decode(prompt)}{output_prefix}{total.text}')
    return batch.results()


def inference_stream(
    llm_engine: ModelEngine,
    template: Template,
    request_list: Requests,
    *,
    generation_config: GenerationConfig | None = None,
    lora_request: LoRAs = None,
    use_tqdm: bool = False,
    generation_info: dict[str, Any] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """As `inference`, but yields the list with the responses so far whenever one has grown; the last list is whole.

    Ending the iteration early ends the requests. Wrong requests raise at the call.
    """
    batch = _Batch(llm_engine, template, request_list, generation_config, lora_request)
    return _stream(batch, use_tqdm, generation_info)


def _stream(batch: _Batch, use_tqdm: bool, info: dict[str, Any] | None) -> Iterator[list[dict[str, Any]]]:
    batch.report(info)
    shown = None
    for totals in batch.run(stream=True, use_tqdm=use_tqdm):
        batch.report(info)
        state = [(total.text, total.finish_reason) for total in totals]
        if state != shown:  # half a character is no news
            yield batch.results()
        shown = state


class _Batch:
    """Requests on their way; a wrong one raises here, before the engine sees any."""

    def __init__(
        self,
        engine: ModelEngine,
        template: Template,
        requests: Requests,
        config: GenerationConfig | None,
        lora: LoRAs,
    ) -> None:
        if isinstance(requests, Mapping | str) or not isinstance(requests, Iterable):
            raise SwiftliteError(f'request_list must be a list of requests, got one {type(requests).__name__}')
        self._engine = engine
        self._requests = list(requests)
        self._config = config or engine.generation_config
        if not isinstance(self._config, GenerationConfig):
            raise SwiftliteError(
                f'generation_config must be a swiftlite.llm.GenerationConfig, got {type(self._config).__name__}'
            )
        self.prompts: list[list[int]] = []
        self._params: list[SamplingParams] = []
        for number, request in enumerate(self._requests, 1):
            try:
                prompt = template.encode(request_messages(request))
                if len(prompt) >= engine.max_model_len:
                    raise RequestError(
                        f'it has {len(prompt)} tokens, but the model takes {engine.max_model_len} in all'
                    )
            except SwiftliteError as error:
                raise RequestError(f'request {number}: {error}') from None
            self.prompts.append(prompt)
            self._params.append(self._config.sampling_params(template, len(prompt), engine.max_model_len))
        self._loras = [lora] * len(self.prompts) if lora is None or isinstance(lora, LoRARequest) else list(lora)
        if len(self._loras) != len(self.prompts):
            raise RequestError(
                f'lora_request has {len(self._loras)} entries for {len(self.prompts)} requests; '
                'give one for all, or as many'
            )
        self.totals: list[CompletionOutput] = []
        self._begun = time.perf_counter()

    def run(self, *, stream: bool, use_tqdm: bool) -> Iterator[list[CompletionOutput]]:
        """The answers so far, whenever there is more (see `ModelEngine.answers`)."""
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        self._begun = time.perf_counter()
        steps = self._engine.answers(self.prompts, self._params, self._loras, stream=stream)
        bar = tqdm(total=len(self.prompts), desc='Requests', unit='req', dynamic_ncols=True, disable=not use_tqdm)
        with bar, contextlib.closing(steps):
            for totals in steps:
                self.totals = totals
                bar.update(sum(total.finish_reason is not None for total in totals) - bar.n)
                yield totals

    def results(self) -> list[dict[str, Any]]:
        return [
            {
                'response': total.text,
                'history': [*map(list, request.get('history') or ()), [request['query'], total.text]],
            }
            for request, total in zip(self._requests, self.totals, strict=True)
        ]

    def report(self, info: dict[str, Any] | None) -> None:
        if info is None:
            return
        seconds = time.perf_counter() - self._begun
        generated = sum(len(total.token_ids) for total in self.totals)
        info.update(
            {
                'num_prompt_tokens': sum(map(len, self.prompts)),
                'num_generated_tokens': generated,
                'num_samples': len(self.prompts),
                'runtime': seconds,
                'samples/s': len(self.prompts) / seconds,
                'tokens/s': generated / seconds,
            }
        )


inference_vllm = inference
inference_stream_vllm = inference_stream
