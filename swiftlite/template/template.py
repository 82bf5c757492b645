"""One class over `TemplateSpec` data: messages → text → token ids and loss labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from swiftlite.errors import SwiftliteError
from swiftlite.registry.templates import BOS, EOS, TODAY, TemplateSpec
from swiftlite.template.thinking import NONE, OPEN, last_query, thoughts, written
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

    `default_system` replaces the template's: a text, or None for no system turn. `enable_thinking` False makes a
    model that may think before it answers (Qwen3) answer at once.
    Raises SwiftliteError where the tokenizer lacks the template's end token, and for messages it cannot render.
    """

    def __init__(
        self,
        spec: TemplateSpec,
        tokenizer: Any,
        *,
        default_system: str | Unset | None = UNSET,
        enable_thinking: bool | None = None,
    ):
        self.spec = spec
        self.tokenizer = tokenizer
        if enable_thinking is not None and spec.thinking != 'optional' and enable_thinking != bool(spec.thinking):
            always = 'always' if spec.thinking else 'never'
            raise SwiftliteError(
                f"thinking cannot be switched: a model with the template '{spec.name}' {always} thinks"
            )
        # what the prompt says of the assistant's turn, beside assistant_start
        self.lead = f'{OPEN}\n' if spec.thinking == 'always' else NONE if enable_thinking is False else ''
        self.default_system = spec.default_system if isinstance(default_system, Unset) else default_system
        if EOS in spec.assistant_end and tokenizer.eos_token is None:
            raise SwiftliteError(f"the template '{spec.name}' needs an end-of-sequence token; the tokenizer has none")
        if BOS in spec.prefix + spec.user[0] and tokenizer.bos_token is None:
            raise SwiftliteError(f"the template '{spec.name}' needs a start-of-sequence token; the tokenizer has none")
        self._end = spec.assistant_end.replace(EOS, tokenizer.eos_token or '')
        self._prefix, self._user_start = (
            x.replace(BOS, tokenizer.bos_token or '') for x in (spec.prefix, spec.user[0])
        )
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
        untrained, before = '', ''
        for piece in self._pieces(messages, tools, add_generation_prompt=False):
            if not piece.trained:
                untrained += piece.text
                continue
            for text, trained in ((untrained, False), (piece.text, True)):
                ids = self._tokenize(text, first=not input_ids and not trained, before=before)
                input_ids += ids
                labels += ids if trained else [IGNORE] * len(ids)
                before = text
            untrained = ''
        ids = self._tokenize(untrained, first=not input_ids, before=before)
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
        end = self._end.strip()
        for word in (end, self.tokenizer.eos_token, *self.spec.stop_words):
            if word is None:
                continue
            token_id = self.tokenizer.convert_tokens_to_ids(word)
            if token_id is not None and self.tokenizer.convert_ids_to_tokens(token_id) == word:
                ids[token_id] = None
            elif word == end:
                raise SwiftliteError(
                    f"the template '{self.spec.name}' does not fit this model: its tokenizer has no '{word}'"
                )
            else:
                strings.append(word)
        return tuple(ids), tuple(strings)

    def _tokenize(self, text: str, first: bool, before: str = '') -> list[int]:
        """Ids of `text`, which follows `before`."""
        special = first and self.spec.special_tokens
        if not text and not special:
            return []
        try:
            text.encode('utf-8')
        except UnicodeEncodeError as error:
            raise SwiftliteError(f'the messages are not valid text (half a surrogate pair): {error}') from None
        if before and self._marks_start:
            for anchor in (before, '\n', '\0'):  # the first whose end no token of `text` reaches over
                head = self.tokenizer.encode(anchor, add_special_tokens=False, verbose=False)
                ids = self.tokenizer.encode(anchor + text, add_special_tokens=False, verbose=False)
                if ids[: len(head)] == head:
                    return ids[len(head) :]
        return self.tokenizer.encode(text, add_special_tokens=special, verbose=False)

    @cached_property
    def _marks_start(self) -> bool:
        """Whether the tokenizer writes a space before any text (SentencePiece), so that a part differs from a whole."""
        ids = self.tokenizer.encode('a', add_special_tokens=False)
        return str(self.tokenizer.convert_ids_to_tokens(ids[0])).startswith('\u2581') if ids else False

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
        if self._prefix:
            pieces.append(Piece(self._prefix))
        folded = ''
        if system is not None and self.spec.system_in_user:
            folded = self._system(system, trim=False).text
        elif system is not None:
            pieces.append(self._system(system, first=True))
        query = last_query(messages) if self.spec.thinking else 0
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
                pieces += self._assistant(message, index, open_end, after_query=index > query, last=last)
            elif role == 'user':
                pieces.append(self._user(folded + _content(message, index)))
                folded = ''
            elif index > 0:
                pieces.append(self._system(_content(message, index)))
        if continue_final_message:
            if messages[-1]['role'] != 'assistant':
                raise SwiftliteError('continue_final_message needs a last message of the assistant')
        elif add_generation_prompt:
            pieces.append(Piece(self.spec.assistant_start + self.lead))
        return pieces

    def _system(self, text: str, first: bool = False, trim: bool = True) -> Piece:
        if self.spec.system is None:
            raise SwiftliteError(f"the template '{self.spec.name}' has no system turn")
        intro = self.spec.system_intro if first else ''
        if TODAY in intro:
            intro = intro.replace(TODAY, datetime.now().strftime('%d %b %Y'))
        return Piece(self.spec.system[0] + intro + (self._trim(text) if trim else text) + self.spec.system[1])

    def _user(self, text: str) -> Piece:
        return Piece(self._user_start + self._trim(text) + self.spec.user[1])

    def _trim(self, text: str) -> str:
        return text.strip() if self.spec.trim else text

    def _assistant(self, message: Message, index: int, open_end: bool, after_query: bool, last: bool) -> list[Piece]:
        calls = message.get('tool_calls') or []
        start, text = self.spec.assistant_start, self._trim(_content(message, index, optional=True))
        made = ''
        if self.spec.thinking:
            thought, text = thoughts(message, text)
        if calls and self._tools:
            made = ('\n' if text else '') + self._tools.calls(calls)
        if self.spec.thinking and after_query and (last or thought):
            text = written(thought, text)
        text = self.spec.reply_start + text + made
        if self.lead and text.startswith(self.lead):
            start, text = start + self.lead, text[len(self.lead) :]
        if open_end:
            return [Piece(start), Piece(text)]
        return [
            Piece(start),
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
        turns = [m['role'] for m in messages[messages[0]['role'] == 'system' :]]
        if self.spec.system_in_user and (not turns or turns != (['user', 'assistant'] * len(turns))[: len(turns)]):
            raise SwiftliteError(
                f"the template '{self.spec.name}' takes user and assistant messages in turn, "
                'after one system message at most'
            )
        if self.spec.single_turn and [m['role'] for m in messages if m['role'] != 'system'] not in (
            ['user'],
            ['user', 'assistant'],
        ):
            raise SwiftliteError(
                f"the template '{self.spec.name}' takes one user message and its answer: "
                'this is a completion model, not a chat model'
            )


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
