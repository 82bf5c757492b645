"""An engine process of this command as the partner."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from swiftlite.engine.errors import EngineDeadError
from swiftlite.engine.process.async_engine import AsyncEngine
from swiftlite.engine.request import LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.infer.setup import Setup, sampling
from swiftlite.serve.service import beside_if_long
from swiftlite.template import Template, get_template
from swiftlite.template.thinking import OPEN
from swiftlite.ui.partner import EngineGone, Messages, Piece, Profile, PromptTooLong, Sampling

if TYPE_CHECKING:
    from swiftlite.args.app_ui import AppUiArgs


class Local:
    """The model that `setup` describes. Create with `await Local.start(setup, args)`."""

    def __init__(self, engine: AsyncEngine, setup: Setup, template: Template | None, args: AppUiArgs) -> None:
        self.engine = engine
        self._template = template
        self._by_thinking: dict[bool | None, Template | None] = {None: template}
        if template is not None and template.spec.thinking == 'optional':
            for switch in (True, False):
                options = setup.template_options | {'enable_thinking': switch}
                self._by_thinking[switch] = get_template(setup.template_type, engine.tokenizer, **options)
        self._base = setup.source.model_type or setup.source.name
        self._loras: dict[str, LoRARequest] = {}
        self._stop_words = list(args.stop_words)
        self._min_p = setup.defaults.get('min_p', 0.0)
        self._numbers = itertools.count()
        self._args = args
        self._defaults = setup.defaults

    @classmethod
    async def start(cls, setup: Setup, args: AppUiArgs) -> Local:
        """Load the model and its adapters; SwiftliteError says what cannot be loaded."""
        engine = await AsyncEngine.start(setup.config)
        try:
            self = cls(engine, setup, _template(setup, engine, args), args)
            for number, (name, path) in enumerate(setup.adapters.items(), 1):
                if name == self._base:
                    raise UsageError(f"--lora_modules names '{name}', which is the base model: give another name")
                request = LoRARequest(name, number, path)
                await engine.add_lora(request)
                self._loras[name] = request
        except BaseException:
            await engine.shutdown(drain=False)
            raise
        return self

    @property
    def limit(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.model_config.max_model_len

    @property
    def profile(self) -> Profile:
        template = self._template
        return Profile(
            models=(self._base, *self._loras),
            chats=template is not None and not template.spec.single_turn,
            limit=self.limit,
            thinking=template.spec.thinking or None if template else None,
            system=template.default_system if template else None,
            sampling=self._sampling(),
        )

    async def chat(self, messages: Messages, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        template = self._by_thinking.get(sampling.thinking) or self._template
        if template is None:
            raise SwiftliteError(f'{self._base} has no chat template: it continues a text.')
        ids = await beside_if_long(sum(len(m['content']) for m in messages), lambda: template.encode(messages))
        if template.lead.startswith(OPEN) and template.spec.thinking == 'always':
            yield Piece(template.lead, 0)  # the prompt opened the thought
        stops = list(template.stop_strings), list(template.stop_token_ids)
        async with contextlib.aclosing(self._generate(ids, model, sampling, *stops)) as pieces:
            async for piece in pieces:
                yield piece

    async def complete(self, text: str, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        tokenizer = self.engine.tokenizer
        ids = await beside_if_long(len(text), lambda: list(tokenizer(text)['input_ids']))
        if not ids:
            raise SwiftliteError('There is no text to continue.')
        async with contextlib.aclosing(self._generate(ids, model, sampling, [], [])) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        await self.engine.shutdown(drain=False)

    async def _generate(
        self, ids: list[int], model: str, sampling: Sampling, stops: Sequence[str], stop_ids: Sequence[int]
    ) -> AsyncGenerator[Piece, None]:
        if len(ids) >= self.limit:
            raise PromptTooLong(len(ids), self.limit)
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            min_p=self._min_p,
            seed=sampling.seed,
            max_tokens=min(sampling.max_tokens, self.limit - len(ids)),
            stop=[*self._stop_words, *stops],
            stop_token_ids=list(stop_ids),
        )
        outputs = self.engine.generate(ids, params, f'page-{next(self._numbers)}', self._lora(model))
        try:
            async with contextlib.aclosing(outputs):  # type: ignore[type-var]
                async for output in outputs:
                    new = output.outputs[0]
                    yield Piece(new.text, len(new.token_ids), new.finish_reason)
        except EngineDeadError as error:
            raise EngineGone(str(error)) from None

    def _lora(self, model: str) -> LoRARequest | None:
        if model == self._base:
            return None
        if model not in self._loras:
            names = (self._base, *self._loras)
            raise SwiftliteError(f"There is no model '{model}' here: {', '.join(names)}{nearest(model, names)}.")
        return self._loras[model]

    def _sampling(self) -> Sampling:
        """What the panel shows first."""
        args = self._args
        names = ('temperature', 'top_p', 'top_k', 'repetition_penalty')
        values = {name: value for name, value in sampling(args, self._defaults).items() if name in names}
        values['top_k'] = max(values.get('top_k', 0), 0)
        template = self._template
        thinking = args.enable_thinking is not False if template and template.spec.thinking == 'optional' else None
        return Sampling(**values, max_tokens=min(args.max_new_tokens, self.limit), thinking=thinking)


def _template(setup: Setup, engine: AsyncEngine, args: AppUiArgs) -> Template | None:
    """None for a model without a chat template, which continues a text instead."""
    try:
        return setup.template(engine.tokenizer)
    except SwiftliteError:
        if args.template_type is not None or args.template_options():
            raise
        return None
