"""A Jinja chat template, a checkpoint's own or one that is given, behind the interface of `Template`."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from swiftlite.errors import SwiftliteError
from swiftlite.registry.templates import JINJA, TemplateSpec
from swiftlite.template.template import UNSET, Message, Piece, Template, Unset, content_text
from swiftlite.template.tool_format import name_and_arguments
from swiftlite.template.tools import FORMATS

KEYS = ('name', 'tool_call_id', 'reasoning_content')  # of a message that a template may read beside role and content
END = 'f6c1QkQ9'  # marks the end of a message whose turn stays open
SAID = 'Vw3jR8'  # what probes say


class JinjaTemplate(Template):
    """Renders as ``tokenizer.apply_chat_template`` does, sandboxed; encodes and trains as every `Template`.

    text: the Jinja source; None: the tokenizer's own. What ends a reply, and in which format tools are called, is
    found by rendering probes. A system prompt given as `default_system` stands for messages that bring none.

    Raises SwiftliteError, one sentence, for a source that is not Jinja, and for messages that the template refuses.
    """

    def __init__(
        self,
        text: str | None,
        tokenizer: Any,
        *,
        default_system: str | Unset | None = UNSET,
        enable_thinking: bool | None = None,
    ):
        self.text = text
        own = getattr(tokenizer, 'chat_template', None)
        if text is None and not own:
            raise SwiftliteError('the tokenizer of this model has no chat template: give --template_type')
        if default_system is None:
            raise SwiftliteError(
                'with a chat template in Jinja an empty --system means nothing: the template decides on its system turn'
            )
        source = text or (own if isinstance(own, str) else json.dumps(own))
        self._thinks = '<think>' in source
        self.tokenizer = tokenizer
        self.enable_thinking = None
        self.default_system = None
        if isinstance(text or own, str):
            check_syntax(source)
        spec = TemplateSpec(
            JINJA,
            user=('', ''),
            assistant_start='',
            assistant_end=self._found_end(),
            turn_sep='',
            tools=self._found_tools() if 'tools' in source else None,
            thinking='optional' if 'enable_thinking' in source else None,
        )
        super().__init__(spec, tokenizer, default_system=default_system, enable_thinking=enable_thinking)
        self._source = source

    @property
    def identity(self) -> str:
        today = f'{datetime.now():%d %b %Y}' if 'strftime_now' in self._source else ''
        return repr((super().identity, self._source, today))

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
    ) -> str:
        self._check(messages, tools)
        self._lead(enable_thinking)
        plain = self._plain(messages)
        if not continue_final_message:
            return self._rendered(plain, tools, add_generation_prompt, enable_thinking)
        if plain[-1]['role'] != 'assistant':
            raise SwiftliteError('continue_final_message needs a last message of the assistant')
        plain[-1]['content'] += END
        text, found, _ = self._rendered(plain, tools, False, enable_thinking).rpartition(END)
        if not found:
            raise SwiftliteError('the chat template leaves out what the last message says, which can not be continued')
        return text

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        prompt: bool,
        thinking: bool | None = None,
    ) -> str:
        from jinja2.exceptions import TemplateError

        thinking = getattr(self, 'enable_thinking', None) if thinking is None else thinking
        switch = {} if thinking is None else {'enable_thinking': thinking}
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=self.text,
                tokenize=False,
                add_generation_prompt=prompt,
                **switch,
            )
        except TemplateError as error:
            said = ' '.join(str(error).split())
            raise SwiftliteError(f'the chat template refuses these messages: {said}') from None
        except Exception as error:  # an operator or filter on what it does not take: anything may be raised
            said = ' '.join(str(error).split())
            raise SwiftliteError(f'the chat template fails on these messages: {said or type(error).__name__}') from None

    def _pieces(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, lead: str, training: bool = False
    ) -> list[Piece]:
        self._check(messages, tools)
        plain = self._plain(messages)
        shift = len(plain) - len(messages)  # a default system turn stands before
        whole, position = self._rendered(plain, tools, prompt=False), 0
        pieces = []
        for index, message in enumerate(messages, shift):
            if message['role'] != 'assistant' or message.get('loss') is False:
                continue
            prompt = self._rendered(plain[:index], tools, prompt=True)
            end = self._answer_end(whole, len(prompt), plain, index, tools)
            if not whole.startswith(prompt) or len(prompt) < position or end is None:
                raise SwiftliteError(
                    f'the chat template writes what stands before message {index - shift + 1} anew when more follows: '
                    "give earlier answers 'loss': false"
                )
            pieces += [Piece(whole[position : len(prompt)]), Piece(whole[len(prompt) : end], trained=True)]
            position = end
        return [*pieces, Piece(whole[position:])]

    def _answer_end(
        self, whole: str, start: int, messages: list[dict[str, Any]], index: int, tools: list[dict[str, Any]] | None
    ) -> int | None:
        """Where the end token of the answer that starts at `start` ends in the whole text."""
        answer = self._rendered(messages[: index + 1], tools, prompt=False)[start:]
        end = answer.rfind(self._end) + len(self._end) if self._end and self._end in answer else len(answer)
        if whole.startswith(answer[:end], start):
            return start + end
        said = messages[index]['content'].strip()
        if not self._end or (found := whole.find(said, start)) < 0:  # earlier turns are written otherwise, as Qwen3's
            return None
        found = whole.find(self._end, found + len(said))
        return None if found < 0 else found + len(self._end)

    def _plain(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages as templates expect them: contents as text, arguments as objects, nothing that is empty."""
        plain: list[dict[str, Any]] = []
        for index, message in enumerate(messages):
            said = content_text(message, index, optional=message['role'] == 'assistant')
            one: dict[str, Any] = {'role': message['role'], 'content': said}
            one |= {key: message[key] for key in KEYS if message.get(key) is not None}
            if message.get('tool_calls'):
                one['tool_calls'] = [_call(call) for call in message['tool_calls']]
            plain.append(one)
        if plain[0]['role'] != 'system' and self.default_system is not None:
            plain.insert(0, {'role': 'system', 'content': self.default_system})
        return plain

    def _lead(self, enable_thinking: bool | None) -> str:
        spec = getattr(self, 'spec', None)
        if enable_thinking is not None and spec and spec.thinking is None and (enable_thinking or self._thinks):
            raise SwiftliteError('thinking cannot be switched: the chat template does not read enable_thinking')
        return ''

    def _found_end(self) -> str:
        """The special token that ends an answer, '' where there is none."""
        turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': SAID}]
        try:
            _, found, rest = self._rendered(turns, None, prompt=False).rpartition(SAID)
        except SwiftliteError:
            return ''
        places = {rest.find(token): token for token in self.tokenizer.all_special_tokens if found and token in rest}
        return places[min(places)] if places else ''

    def _found_tools(self) -> str | None:
        """The entry of FORMATS that writes a call as this template does."""
        call = {'type': 'function', 'id': 'abcdef012', 'function': {'name': SAID, 'arguments': {'x': 1}}}
        turns: list[dict[str, Any]] = [
            {'role': 'user', 'content': 'a'},
            {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        ]
        tool = {'type': 'function', 'function': {'name': SAID, 'parameters': {'type': 'object', 'properties': {}}}}
        try:
            text = self._rendered(turns, [tool], prompt=False)
        except SwiftliteError:
            return None
        for name, tools in FORMATS.items():
            if tools.calls([call], ['abcdef012'], after_text=False) in text:
                return name
        return None


def check_syntax(source: str) -> None:
    """SwiftliteError, with the line, for a text that is no Jinja template."""
    from jinja2.exceptions import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(source)
    except TemplateSyntaxError as error:
        said = ' '.join(str(error.message).split())
        raise SwiftliteError(f'the chat template is no Jinja, line {error.lineno}: {said}') from None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    name, arguments = name_and_arguments(call)
    return {**call, 'type': 'function', 'function': {'name': name, 'arguments': arguments}}
