"""One class over `TemplateSpec` data: messages → text → token ids and loss labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swiftlite.errors import SwiftliteError
from swiftlite.registry.resolve import get_template_spec
from swiftlite.registry.templates import EOS, TEMPLATES, TemplateSpec
from swiftlite.template.tools import FORMATS, ToolFormat

IGNORE: Final = -100  # label of a token that carries no loss
ROLES = ('system', 'user', 'assistant', 'tool')
Message = Mapping[str, Any]


class Unset:
    """The type of `UNSET`, which is not None: None means a conversation without a system turn."""

    def __repr__(self) -> str:
        return 'UNSET'


UNSET: Final = Unset()


@dataclass(frozen=True)
class Encoded:
    """A training example. Both lists have one length; a label is the token's id where loss is taken, else -100."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Piece:
    """A part of the rendered text; `trained` parts are what the model writes, end token included."""

    text: str
    trained: bool = False


class Template:
    """Encodes conversations for one tokenizer.

    A message is ``{'role': 'system' | 'user' | 'assistant' | 'tool', 'content': str}``; an assistant's may carry
    ``'tool_calls': [{'type': 'function', 'function': {'name': str, 'arguments': dict | JSON text}}]`` and
    ``'loss': False``; content may also be a list of ``{'type': 'text', 'text': str}`` parts, joined by newlines.

    The token ids equal those of the checkpoint's own chat template: the whole text is tokenized at once. In training
    the one hard boundary is before each trained assistant turn, where the model starts to write when it is served.

    `default_system` replaces the template's: a text, or None for no system turn.
    Raises SwiftliteError where the tokenizer lacks the template's end token, and for messages it cannot render.
    """

    def __init__(self, spec: TemplateSpec, tokenizer: Any, *, default_system: str | Unset | None = UNSET):
        self.spec = spec
        self.tokenizer = tokenizer
        self.default_system = spec.default_system if isinstance(default_system, Unset) else default_system
        if spec.assistant_end == EOS and tokenizer.eos_token is None:
            raise SwiftliteError(f"the template '{spec.name}' needs an end-of-sequence token; the tokenizer has none")
        self._end = tokenizer.eos_token if spec.assistant_end == EOS else spec.assistant_end
        self.stop_token_ids, self.stop_strings = self._stops()

    @property
    def name(self) -> str:
        return self.spec.name

    def encode(
        self,
        messages: Sequence[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """Token ids of a prompt. `continue_final_message` leaves the last assistant turn open for more."""
        pieces = self._pieces(messages, tools, add_generation_prompt, continue_final_message)
        return self._tokenize(''.join(piece.text for piece in pieces), first=True)

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The text that `encode` tokenizes."""
        return ''.join(p.text for p in self._pieces(messages, tools, add_generation_prompt, continue_final_message))

    def encode_training(self, messages: Sequence[Message], *, tools: list[dict[str, Any]] | None = None) -> Encoded:
        """Token ids and labels: every assistant turn and its end token carry the loss, unless it says 'loss': False."""
        input_ids: list[int] = []
        labels: list[int] = []
        untrained = ''
        for piece in self._pieces(messages, tools, add_generation_prompt=False):
            if not piece.trained:
                untrained += piece.text
                continue
            for text, trained in ((untrained, False), (piece.text, True)):
                ids = self._tokenize(text, first=not input_ids and not trained)
                input_ids += ids
                labels += ids if trained else [IGNORE] * len(ids)
            untrained = ''
        ids = self._tokenize(untrained, first=not input_ids)
        return Encoded(input_ids + ids, labels + [IGNORE] * len(ids))

    def parse_tool_calls(self, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        """Split a reply into its text (None if empty) and its tool calls, whose arguments are JSON text."""
        return self._tools.parse(text) if self._tools else (text or None, [])

    @property
    def _tools(self) -> ToolFormat | None:
        return FORMATS[self.spec.tools] if self.spec.tools else None

    def _stops(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        ids: dict[int, None] = {}
        strings = []
        for word in (self._end, self.tokenizer.eos_token, *self.spec.stop_words):
            if word is None:
                continue
            token_id = self.tokenizer.convert_tokens_to_ids(word)
            if token_id is not None and self.tokenizer.convert_ids_to_tokens(token_id) == word:
                ids[token_id] = None
            elif word == self._end:
                raise SwiftliteError(
                    f"the template '{self.spec.name}' does not fit this model: its tokenizer has no '{word}'"
                )
            else:
                strings.append(word)
        return tuple(ids), tuple(strings)

    def _tokenize(self, text: str, first: bool) -> list[int]:
        special = first and self.spec.special_tokens
        if not text and not special:
            return []
        try:
            text.encode('utf-8')
        except UnicodeEncodeError as error:
            raise SwiftliteError(f'the messages are not valid text (half a surrogate pair): {error}') from None
        return self.tokenizer.encode(text, add_special_tokens=special, verbose=False)

    def _pieces(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
        continue_final_message: bool = False,
    ) -> list[Piece]:
        self._check(messages, tools)
        pieces: list[Piece] = []
        system = _content(messages[0], 0) if messages[0]['role'] == 'system' else self.default_system
        if tools and self._tools:
            block = self._tools.system(tools)
            system = block if system is None else f'{system}\n\n{block}'
        if system is not None:
            pieces.append(self._system(system))
        results: list[str] = []
        for index, message in enumerate(messages):
            role, last = message['role'], index == len(messages) - 1
            if role == 'tool':
                assert self._tools is not None  # see _check
                results.append(_content(message, index))
                if last or messages[index + 1]['role'] != 'tool':
                    pieces.append(self._user(self._tools.results(results)))
                    results = []
            elif role == 'assistant':
                open_end = last and continue_final_message
                pieces += self._assistant(message, index, open_end)
            elif role == 'user':
                pieces.append(self._user(_content(message, index)))
            elif index > 0:
                pieces.append(self._system(_content(message, index)))
        if continue_final_message:
            if messages[-1]['role'] != 'assistant':
                raise SwiftliteError('continue_final_message needs a last message of the assistant')
        elif add_generation_prompt:
            pieces.append(Piece(self.spec.assistant_start))
        return pieces

    def _system(self, text: str) -> Piece:
        if self.spec.system is None:
            raise SwiftliteError(f"the template '{self.spec.name}' has no system turn")
        return Piece(self.spec.system[0] + text + self.spec.system[1])

    def _user(self, text: str) -> Piece:
        return Piece(self.spec.user[0] + text + self.spec.user[1])

    def _assistant(self, message: Message, index: int, open_end: bool) -> list[Piece]:
        calls = message.get('tool_calls') or []
        text = _content(message, index, optional=True)
        if calls and self._tools:
            text += ('\n' if text else '') + self._tools.calls(calls)
        if open_end:
            return [Piece(self.spec.assistant_start), Piece(text)]
        return [
            Piece(self.spec.assistant_start),
            Piece(text + self._end, trained=message.get('loss') is not False),
            Piece(self.spec.turn_sep),
        ]

    def _check(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> None:
        if not messages:
            raise SwiftliteError('there are no messages')
        for index, message in enumerate(messages):
            if message.get('role') not in ROLES:
                raise SwiftliteError(
                    f'message {index + 1} has the role {message.get("role")!r}: valid are {", ".join(ROLES)}'
                )
        uses_tools = tools or any(m['role'] == 'tool' or m.get('tool_calls') for m in messages)
        if uses_tools and self._tools is None:
            raise SwiftliteError(f"the template '{self.spec.name}' has no tools")
        if self.spec.single_turn and [m['role'] for m in messages if m['role'] != 'system'] not in (
            ['user'],
            ['user', 'assistant'],
        ):
            raise SwiftliteError(
                f"the template '{self.spec.name}' takes one user message and its answer: "
                'this is a completion model, not a chat model'
            )


def get_template(template_type: str | None, tokenizer: Any, *, default_system: str | Unset | None = UNSET) -> Template:
    """The template of that name; None: the one that renders as the tokenizer's own chat template does."""
    name = template_type or detect(tokenizer)
    if name is None:
        raise SwiftliteError(
            'the prompt format of this model is not known: give --model_type or --template_type '
            f'({", ".join(TEMPLATES)})'
        )
    return Template(get_template_spec(name), tokenizer, default_system=default_system)


def detect(tokenizer: Any) -> str | None:
    """The template that renders three probe conversations as the tokenizer's own chat template does, or None."""
    if not getattr(tokenizer, 'chat_template', None):
        return None
    from jinja2.exceptions import TemplateError

    turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}, {'role': 'user', 'content': 'c'}]
    system = [{'role': 'system', 'content': 's'}]
    tool = {'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {}}}}
    # templates with tools first: those without would match a checkpoint that has them, too
    for spec in sorted(TEMPLATES.values(), key=lambda spec: spec.tools is None):
        probes: list[tuple[list[dict[str, str]], list[dict[str, Any]] | None]] = [(turns, None), (system + turns, None)]
        probes += [(turns, [tool])] if spec.tools else []
        try:
            template = Template(spec, tokenizer)
            if all(
                template.render(messages, tools)
                == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
                for messages, tools in probes
            ):
                return spec.name
        except (SwiftliteError, TemplateError):
            continue  # the one or the other refuses a probe
    return None


def _content(message: Message, index: int, optional: bool = False) -> str:
    content = message.get('content')
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ''
    if isinstance(content, Sequence) and all(
        isinstance(p, Mapping) and isinstance(p.get('text'), str) for p in content
    ):
        return '\n'.join(part['text'] for part in content)
    raise SwiftliteError(f'the content of message {index + 1} ({message["role"]}) is not text')
