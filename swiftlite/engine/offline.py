"""`LLM`: batches of prompts through an engine in this process (vLLM's offline API)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..checkpoint.config import sampling_defaults
from ..checkpoint.tokenizer import load_tokenizer
from ..errors import nearest
from ..registry.resolve import complete
from ..registry.resolve import resolve_model as resolve_source
from ..template import Template, from_jinja, get_template
from .beam_search import BeamSearchOutput, BeamSearchParams, beam_search
from .config import EngineConfig
from .engine import Engine
from .errors import RequestError
from .output_processor import RequestState
from .outputs import CompletionOutput, RequestOutput
from .prompts import Prompt, listed, read_prompt
from .request import EngineRequest, LoRARequest
from .sampling_params import SamplingParams


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
        pairs = [read_prompt(p, self.tokenizer) for p in listed(prompts)]
        params = self._params(sampling_params, len(pairs))
        loras = _spread(lora_request, len(pairs), 'lora_request', LoRARequest | None)
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
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        chat_template_content_format: str = 'auto',
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer conversations ([{'role', 'content'}, …] or a list of them) with the model's own template.

        chat_template: another one, as Jinja text. chat_template_kwargs: {'enable_thinking': bool}. A template's stop
        words end an answer unless its sampling parameters ignore_eos. chat_template_content_format changes nothing.
        """
        if mm_processor_kwargs:
            raise RequestError('mm_processor_kwargs is not supported: models read and write text only.')
        for name in chat_template_kwargs or {}:
            if name != 'enable_thinking':
                hint = nearest(name, ['enable_thinking'])
                raise RequestError(f'chat_template_kwargs has {name}; valid is enable_thinking{hint}.')
        chats = _conversations(messages)
        template = self.template if chat_template is None else from_jinja(chat_template, self.tokenizer)
        prompts: list[Prompt] = [
            template.encode(
                chat,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **(chat_template_kwargs or {}),
            )
            for chat in chats
        ]
        params = self._params(sampling_params, len(chats))
        ended = {id(p): _ended(p, template) for p in params}
        return self.generate(prompts, [ended[id(p)] for p in params], use_tqdm, lora_request)

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
        batch = [read_prompt(p, self.tokenizer)[1] for p in listed(prompts)]
        outputs = beam_search(
            batch,
            _spread(lora_request, len(batch), 'lora_request', LoRARequest | None),
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

    def _params(self, given: Any, count: int) -> list[SamplingParams]:
        params = given if given is not None else self.get_default_sampling_params()
        return _spread(params, count, 'sampling_params', SamplingParams)

    def _run(
        self,
        prompts: list[tuple[str | None, list[int]]],
        params: list[SamplingParams],
        loras: list[LoRARequest | None],
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        outputs: list[RequestOutput] = []
        states: dict[str, tuple[RequestState, RequestOutput]] = {}
        self.engine.add_missing(loras)
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
                if new.prompt_logprobs is not None:
                    out.prompt_logprobs = state.prompt_logprobs()
                if state.finished:
                    out.num_cached_tokens = max(out.num_cached_tokens, state.cached)
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


def _ended(params: SamplingParams, template: Template) -> SamplingParams:
    """The parameters with the template's stop words: a checkpoint's own end tokens need not be those of a turn."""
    if params.ignore_eos:
        return params
    words = template.stop_strings if params.detokenize else ()
    return params.clone(
        stop=[*(params.stop or ()), *words],
        stop_token_ids=[*(params.stop_token_ids or ()), *template.stop_token_ids],
    )


def _conversations(messages: Any) -> list[list[dict[str, Any]]]:
    """One conversation or several, as a list of them."""
    if isinstance(messages, list | tuple) and messages:
        chats = [messages] if isinstance(messages[0], Mapping) else messages
        if all(isinstance(chat, list | tuple) and all(isinstance(m, Mapping) for m in chat) for chat in chats):
            return list(chats)  # type: ignore[arg-type]
    elif messages in (None, [], ()):
        raise RequestError('messages is empty.')
    raise RequestError("messages must be a list of {'role': …, 'content': …}, or a list of such lists.")


def _spread(value: Any, count: int, name: str, kind: Any) -> list[Any]:
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else [value] * count
    if len(values) != count:
        raise RequestError(f'{name} has {len(values)} entries for {count} prompts; give one for all, or as many.')
    for one in values:
        if not isinstance(one, kind):
            wanted = 'a LoRARequest or None' if name == 'lora_request' else 'SamplingParams'
            raise RequestError(f'{name} must be {wanted}, got {type(one).__name__}.')
    return values
