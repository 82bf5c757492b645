"""`get_engine`: a model type → an engine in this process, with its tokenizer and generation defaults."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from swiftlite.checkpoint.config import generation_config, sampling_defaults
from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.engine.config import EngineConfig
from swiftlite.engine.engine import Engine
from swiftlite.engine.output_processor import RequestState, accumulate
from swiftlite.engine.outputs import CompletionOutput, SequenceOutput
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import SwiftliteError
from swiftlite.llm.generation import MAX_NEW_TOKENS, GenerationConfig
from swiftlite.registry.resolve import ModelSource, complete, resolve_model


class ModelEngine:
    """An engine that knows which model it runs.

    hf_tokenizer: the checkpoint's tokenizer. generation_config: its sampling values, to be changed at will; they hold
    for calls that bring none. model_type: None where the files do not tell.
    """

    def __init__(self, source: ModelSource, config: EngineConfig) -> None:
        self.engine = Engine(config)
        path = self.engine.model_config.path
        self.model_type = complete(source, path).model_type
        self.model_dir = path
        self.hf_tokenizer = load_tokenizer(self.engine.model_config.tokenizer)
        limit = generation_config(path).get('max_new_tokens') or MAX_NEW_TOKENS
        self.generation_config = GenerationConfig(max_new_tokens=limit, **sampling_defaults(path))
        self._ids = itertools.count()
        self._new: dict[str, deque[SequenceOutput]] = {}  # of each running request, not yet taken

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.model_config.max_model_len

    def answers(
        self,
        prompts: Sequence[list[int]],
        params: Sequence[SamplingParams],
        loras: Sequence[LoRARequest | None],
        *,
        stream: bool,
    ) -> Generator[list[CompletionOutput], None, None]:
        """The answers so far, whenever there is more; all are finished in the last list.

        Without `stream`, text is made at the end only. Several iterators may run side by side; one that is closed
        early leaves nothing behind.
        """
        totals = [CompletionOutput(index, '', [], lora_request=lora) for index, lora in enumerate(loras)]
        running: dict[str, RequestState] = {}
        self.engine.add_missing(loras)
        try:
            for index, (prompt, one, lora) in enumerate(zip(prompts, params, loras, strict=True)):
                request = EngineRequest(f'llm-{next(self._ids)}', prompt, one, lora)
                self.engine.add_request(request)
                self._new[request.request_id] = deque()
                running[request.request_id] = RequestState(request, self.hf_tokenizer, index)
            while running:
                if not any(self._new[request_id] for request_id in running):
                    self._step()
                    continue
                for request_id, state in list(running.items()):
                    while self._new[request_id] and not state.finished:
                        output = self._new[request_id].popleft()
                        if stream:
                            accumulate(totals[state.index], state.update(output))
                        else:
                            state.collect(output, totals[state.index])
                    if state.finished:
                        self._forget(request_id)
                        del running[request_id]
                yield totals
        finally:
            for request_id in running:
                self._forget(request_id)

    def shutdown(self) -> None:
        """Free the engine's memory and processes."""
        self.engine.shutdown()

    def _step(self) -> None:
        for output in self.engine.step():
            if output.request_id in self._new:
                self._new[output.request_id].append(output)

    def _forget(self, request_id: str) -> None:
        self._new.pop(request_id, None)
        self.engine.abort(request_id)


def get_engine(
    model_type: str | None = None,
    torch_dtype: Any = None,
    *,
    model_id_or_path: str | None = None,
    revision: str | None = None,
    tensor_parallel_size: int = 1,
    enable_lora: bool = False,
    max_loras: int | None = None,
    max_lora_rank: int | None = None,
    engine_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> ModelEngine:
    """Load a model into this process.

    model_type: a name of `ModelType`; may be None where `model_id_or_path`, a folder or a hub id, is given.
    torch_dtype: torch.bfloat16, 'bfloat16', …; None: the checkpoint's. `options`, and `engine_kwargs` as well, are
    those of EngineConfig: max_model_len, gpu_memory_utilization, max_num_seqs, …. Raises SwiftliteError, one sentence,
    for unknown names and for what does not fit.
    """
    source = resolve_model(model_type, model_id_or_path, revision=revision)
    given = {'max_loras': max_loras, 'max_lora_rank': max_lora_rank}
    twice = sorted(options.keys() & (engine_kwargs or {}).keys())
    if twice:
        raise SwiftliteError(f"'{twice[0]}' is given twice: beside engine_kwargs and in it")
    config = EngineConfig.from_kwargs(
        model=source.model_id_or_path,
        revision=source.revision,
        dtype='auto' if torch_dtype is None else str(torch_dtype).removeprefix('torch.'),
        tensor_parallel_size=tensor_parallel_size,
        enable_lora=enable_lora,
        **{name: value for name, value in given.items() if value is not None},
        **(options | (engine_kwargs or {})),
    )
    return ModelEngine(source, config)


get_vllm_engine = get_engine
