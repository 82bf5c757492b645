"""`LLM`: batches of prompts through an engine in this process (vLLM's offline API)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ..checkpoint.config import sampling_defaults
from ..checkpoint.tokenizer import load_tokenizer
from ..registry.resolve import complete
from ..registry.resolve import resolve_model as resolve_source
from ..template import Template, get_template
from .beam_search import BeamSearchOutput, BeamSearchParams, beam_search
from .config import EngineConfig
from .engine import Engine
from .errors import RequestError
from .output_processor import RequestState
from .outputs import CompletionOutput, RequestOutput
from .request import EngineRequest, LoRARequest
from .sampling_params import SamplingParams

Prompt = str | list[int] | dict[str, Any]
T = TypeVar('T')


class LLM:
    """An engine with a tokenizer.

    model: a model type ('tiny-chat'), a folder, or a hub id. Other options are EngineConfig's; others are refused.
    """

    def __init__(self, model: str, tokenizer: str | None = None, **options: Any):
        config = EngineConfig.from_kwargs(model=model, tokenizer=tokenizer, **options)
        self.engine = Engine(config)
        self.tokenizer = None if config.skip_tokenizer_init else load_tokenizer(self.engine.model_config.tokenizer)
        self._template: Template | None = None
        self._ids = itertools.count()

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """The checkpoint's sampling values (generation_config.json); a new object every time."""
        return SamplingParams(**sampling_defaults(self.engine.model_config.path))

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
    ) -> list[RequestOutput]:
        """Complete prompts: text, token ids, {'prompt': text} or {'prompt_token_ids': ids}; results in their order.

        sampling_params and lora_request: one for all, or a list of the prompts' length; without sampling_params the
        checkpoint's own hold.
        """
        batch = _listed(prompts)
        pairs = [self._prompt(p) for p in batch]
        given = sampling_params if sampling_params is not None else self.get_default_sampling_params()
        params = _spread(given, len(batch), 'sampling_params')
        loras = _spread(lora_request, len(batch), 'lora_request')
        return self._run(pairs, params, loras, use_tqdm)

    def chat(
        self,
        messages: list[dict] | list[list[dict]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        *,
        tools: list[dict] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[RequestOutput]:
        """Answer conversations ([{'role', 'content'}, …] or a list of them) with the model's own template."""
        if not messages:
            raise RequestError('messages is empty.')
        chats = [messages] if isinstance(messages[0], dict) else messages
        prompts = [
            {
                'prompt_token_ids': self.template.encode(
                    chat,
                    tools=tools,
                    add_generation_prompt=add_generation_prompt,  # type: ignore[arg-type]
                    continue_final_message=continue_final_message,
                )
            }
            for chat in chats
        ]
        return self.generate(prompts, sampling_params, use_tqdm, lora_request)  # type: ignore[arg-type]

    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        use_tqdm: bool = False,
    ) -> list[BeamSearchOutput]:
        """The likeliest continuations of prompts (see `generate`), the best first; their texts begin with the prompt.

        Needs 2 * beam_width log probabilities a step: max_logprobs of the engine limits beam_width.
        """
        most = self.engine.config.max_logprobs
        if 2 * params.beam_width > most != -1:
            raise RequestError(
                f'beam_width {params.beam_width} needs {2 * params.beam_width} log probabilities a step; this engine '
                f'gives {most}; start it with a larger max_logprobs.'
            )
        batch = [self._prompt(p)[1] for p in _listed(prompts)]
        outputs = beam_search(
            batch,
            _spread(lora_request, len(batch), 'lora_request'),
            params,
            lambda ids, step, loras: self.generate(ids, step, use_tqdm, loras),
            self.engine.model_config.eos_token_ids,
            self.engine.model_config.max_model_len,
        )
        if self.tokenizer is not None:
            for beam in (beam for out in outputs for beam in out.sequences):
                beam.text = self.tokenizer.decode(beam.tokens)
        return outputs

    def reset_prefix_cache(self) -> bool:
        """Forget the prompts that were seen; False if requests run, which keep theirs."""
        return self.engine.blocks.reset_prefix_cache()

    @property
    def template(self) -> Template:
        """The model's template, from the registry."""
        if self._template is None:
            path = self.engine.model_config.path
            source = complete(resolve_source(model_id_or_path=self.engine.config.model), path)
            self._template = get_template(source.template, self.tokenizer)
        return self._template

    def shutdown(self) -> None:
        """Free the engine's memory and processes."""
        self.engine.shutdown()

    def _prompt(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, dict):
            prompt = prompt['prompt_token_ids'] if 'prompt_token_ids' in prompt else prompt.get('prompt')  # type: ignore[assignment]
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise RequestError('skip_tokenizer_init is set: give prompt_token_ids instead of text.')
            return prompt, self.tokenizer(prompt)['input_ids']
        if _is_ids(prompt):
            return None, list(prompt)  # type: ignore[arg-type]
        raise RequestError(
            "A prompt is text, a list of token ids, {'prompt': text} or {'prompt_token_ids': ids}; "
            f'got {type(prompt).__name__}.'
        )

    def _run(
        self,
        prompts: list[tuple[str | None, list[int]]],
        params: list[SamplingParams],
        loras: list[LoRARequest | None],
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        outputs: list[RequestOutput] = []
        states: dict[str, tuple[RequestState, RequestOutput]] = {}
        try:
            for (text, given), p, lora in zip(prompts, params, loras, strict=False):
                p.update_from_tokenizer(self.tokenizer)
                ids = p.truncate(given, self.engine.model_config.max_model_len)
                if p.structure is not None:
                    self.engine.compile_structure(p.structure)
                out = RequestOutput(str(next(self._ids)), text, ids, lora_request=lora)
                for index in range(p.n):
                    one = p if p.n == 1 else _answer(p, index)
                    request = EngineRequest(f'{out.request_id}.{index}', ids, one, lora)
                    self.engine.add_request(request)
                    states[request.request_id] = RequestState(request, self.tokenizer, index), out
                    out.outputs.append(CompletionOutput(index, '', [], lora_request=lora))
                outputs.append(out)
            self._drive(states, len(outputs), use_tqdm)
        finally:  # an error or Ctrl-C leaves nothing behind
            for request_id in states:
                self.engine.abort(request_id)
        return outputs

    def _drive(self, states: dict[str, tuple[RequestState, RequestOutput]], total: int, use_tqdm: bool) -> None:
        bar = None
        if use_tqdm:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]

            bar = tqdm(total=total, desc='Prompts', unit='req', dynamic_ncols=True)
        while states:
            for new in self.engine.step():
                if new.request_id not in states:
                    continue
                state, out = states[new.request_id]
                state.collect(new, out.outputs[state.index])
                out.num_cached_tokens = max(out.num_cached_tokens, state.cached)
                out.prompt_logprobs = out.prompt_logprobs or state.prompt_logprobs()
                if state.finished:
                    if state.stopped:
                        self.engine.abort(new.request_id)
                    del states[new.request_id]
                    out.finished = all(o.finish_reason for o in out.outputs)
                    if bar is not None and out.finished:
                        bar.update()
        if bar is not None:
            bar.close()


def _answer(params: SamplingParams, index: int) -> SamplingParams:
    """The parameters of one of n answers: its own seed; the first one tells the prompt's log probabilities."""
    return params.clone(
        n=1,
        seed=None if params.seed is None else (params.seed + index + 2**63) % 2**64 - 2**63,
        prompt_logprobs=params.prompt_logprobs if index == 0 else None,
    )


def _listed(prompts: Any) -> list[Any]:
    single = not isinstance(prompts, Sequence) or isinstance(prompts, str) or _is_ids(prompts)
    return [prompts] if single else list(prompts)


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(t, int) and not isinstance(t, bool) for t in value)
    )


def _spread(value: Any, count: int, name: str) -> list[Any]:
    if isinstance(value, Iterable) and not isinstance(value, (str, dict)):
        values = list(value)
        if len(values) != count:
            raise RequestError(f'{name} has {len(values)} entries for {count} prompts; give one for all, or as many.')
        return values
    return [value] * count
