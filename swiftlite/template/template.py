"""One class over `TemplateSpec` data: messages → text → token ids and loss labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from swiftlite.errors import SwiftliteError
from swiftlite.registry.templates import BOS, EOS, TODAY, TemplateSpec
from swiftlite.template.thinking import NONE, OPEN, last_query, thoughts, written
from swiftlite.template.tool_format import ToolFormat
from swiftlite.template.tools import FORMATS

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
    ``'tool_calls': [{'type': 'function', 'function': {'name': str, 'arguments': dict | JSON text}}]`` (with or without
    an 'id' that a tool's 'tool_call_id' repeats) and ``'loss': False``; content may also be a list of
    ``{'type': 'text', 'text': str}`` parts, joined by newlines.

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
        self.enable_thinking = enable_thinking
        self.lead = self._lead(enable_thinking)  # what the prompt says of the assistant's turn, beside assistant_start
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
        enable_thinking: bool | None = None,
    ) -> list[int]:
        """Token ids of a prompt. `continue_final_message` leaves the last assistant turn open for more.

        `enable_thinking` replaces the template's own for this prompt.
        """
        text = self.render(messages, tools, add_generation_prompt, continue_final_message, enable_thinking)
        return self._tokenize(text, first=True)

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
    ) -> str:
        """The text that `encode` tokenizes."""
        lead = self.lead if enable_thinking is None else self._lead(enable_thinking)
        pieces = self._pieces(messages, tools, lead)
        if continue_final_message:
            if messages[-1]['role'] != 'assistant':
                raise SwiftliteError('continue_final_message needs a last message of the assistant')
            return ''.join(piece.text for piece in pieces[:-1]).removesuffix(self._end)
        return ''.join(p.text for p in pieces) + (self.spec.assistant_start + lead if add_generation_prompt else '')

    def encode_training(
        self, messages: Sequence[Message], *, tools: list[dict[str, Any]] | None = None, loss_scale: str = 'default'
    ) -> Encoded:
        """Token ids and labels: every assistant turn and its end token carry the loss, unless it says 'loss': False.

        `loss_scale` 'last_round': those behind the last message of the user alone; 'all': every token; with
        'ignore_empty_think', also behind a '+', an empty thought at the start of a turn is not learned.
        A lone message of the role 'text' is learned as it stands, up to an end-of-sequence token.
        """
        chosen = loss_scale.split('+')
        learn_all = 'all' in chosen
        if len(messages) == 1 and messages[0]['role'] == 'text':
            ids = self.tokenizer.encode(messages[0]['content'], verbose=False)
            eos = self.tokenizer.eos_token_id
            ids = ids if eos is None or ids[-1:] == [eos] else [*ids, eos]
            return Encoded(ids, list(ids))
        if learn_all and any(message.get('loss') is False for message in messages):
            raise SwiftliteError("a message says 'loss': false, but with --loss_scale all every token is learned")
        if 'last_round' in chosen:
            messages = last_round(messages)
        input_ids: list[int] = []
        labels: list[int] = []
        untrained, before = '', ''
        for piece in self._pieces(messages, tools, self.lead, training=True):
            if not piece.trained:
                untrained += piece.text
                continue
            learned = piece.text
            if 'ignore_empty_think' in chosen and learned.startswith(NONE):
                untrained, learned = untrained + NONE, learned.removeprefix(NONE)
            for text, trained in ((untrained, False), (learned, True)):
                ids = self._tokenize(text, first=not input_ids and not trained, before=before)
                input_ids += ids
                labels += ids if trained or learn_all else [IGNORE] * len(ids)
                before = text
            untrained = ''
        ids = self._tokenize(untrained, first=not input_ids, before=before)
        return Encoded(input_ids + ids, labels + (ids if learn_all else [IGNORE] * len(ids)))

    @property
    def identity(self) -> str:
        """What `encode_training` depends on beside the tokenizer; the same text for templates that write the same."""
        today = f'{datetime.now():%d %b %Y}' if TODAY in self.spec.system_intro else ''
        return repr((self.spec, self.default_system, self.enable_thinking, today))

    def parse_tool_calls(self, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        """Split a reply into its text (None if empty) and its tool calls, whose arguments are JSON text."""
        return self.tool_format.parse(text) if self.tool_format else (text or None, [])

    @property
    def tool_format(self) -> ToolFormat | None:
        """How tools, calls and results are written, None for a template without tools."""
        return FORMATS[self.spec.tools] if self.spec.tools else None

    def _stops(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        ids: dict[int, None] = {}
        strings = []
        end = self._end.strip()
        for word in (end, self.tokenizer.eos_token, *self.spec.stop_words):
            if not word:
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
            raise SwiftliteError('the messages are not valid text (half a surrogate pair)') from error
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

    def _lead(self, enable_thinking: bool | None) -> str:
        """Raises SwiftliteError where a model that always or never thinks shall do the other."""
        thinking = self.spec.thinking
        if enable_thinking is not None and thinking != 'optional' and enable_thinking != bool(thinking):
            always = 'always' if thinking else 'never'
            raise SwiftliteError(
                f"thinking cannot be switched: a model with the template '{self.spec.name}' {always} thinks"
            )
        return f'{OPEN}\n' if thinking == 'always' else NONE if thinking and enable_thinking is False else ''

    def _pieces(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, lead: str, training: bool = False
    ) -> list[Piece]:
        """The conversation without a generation prompt; the last piece of an assistant's turn is its `turn_sep`."""
        self._check(messages, tools)
        pieces = [Piece(self._prefix)] if self._prefix else []
        block, intro = '', self.spec.system_intro
        if tools and self.tool_format:
            block, intro = self.tool_format.system(tools), self.tool_format.intro() + intro
        system = content_text(messages[0], 0) if messages[0]['role'] == 'system' else self.default_system
        if block:
            system = block if system is None else f'{system}\n\n{block}'
        folded = ''
        if system is not None and self.spec.system_in_user:
            folded = self._system(system, fold=True).text
        elif system is not None:
            pieces.append(self._system(system, intro))
        heads = self._heads(messages, tools, folded, training)
        query = last_query(messages) if self.spec.thinking else 0
        made: Iterator[str] = iter(())  # ids of the calls that wait for a result
        results: list[tuple[str, str]] = []
        for index, message in enumerate(messages):
            role, last = message['role'], index == len(messages) - 1
            if role == 'tool':
                assert self.tool_format is not None  # see _check
                call_id = next(made, f'{index:09}')
                results.append((content_text(message, index), message.get('tool_call_id') or call_id))
                if last or messages[index + 1]['role'] != 'tool':
                    contents, ids = zip(*results, strict=True)
                    pieces.append(Piece(self.tool_format.results(contents, ids, (self._user_start, self.spec.user[1]))))
                    results = []
            elif role == 'assistant':
                calls = message.get('tool_calls') or []
                call_ids = [call.get('id') or f'{index:05}{number:04}' for number, call in enumerate(calls)]
                pieces += self._assistant(message, index, call_ids, lead, after_query=index > query, last=last)
                made = iter(call_ids)
            elif role == 'user':
                before, head, folded = heads.get(index, ('', '', ''))
                said = self._trim(folded + content_text(message, index), 'user')
                pieces.append(Piece(before + self._user_start + head + said + self.spec.user[1]))
            elif index > 0:
                pieces.append(self._system(content_text(message, index)))
        return pieces

    def _heads(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, folded: str, training: bool
    ) -> dict[int, tuple[str, str, str]]:
        """By index of a user's turn: what stands before it, at its head, and of the system turn folded into it."""
        users = [index for index, message in enumerate(messages) if message['role'] == 'user']
        heads: dict[int, tuple[str, str, str]] = {}
        if not users:
            return heads
        if tools and self.tool_format:
            if self.tool_format.at == 'first':
                places = users[:1]
            else:  # turns that say the same are one to the templates that write before the last
                places = [index for index in users if messages[index]['content'] == messages[users[-1]]['content']]
            for index in places:
                heads[index] = self.tool_format.before_user(tools), self.tool_format.in_user(tools), ''
        if folded and self.spec.system_in_user == 'first':
            heads[users[0]] = (*heads.get(users[0], ('', ''))[:2], folded)
        elif folded and (training or users[-1] == len(messages) - 1):
            heads[users[-1]] = (*heads.get(users[-1], ('', ''))[:2], folded)
        return heads

    def _system(self, text: str, intro: str = '', fold: bool = False) -> Piece:
        if self.spec.system is None:
            raise SwiftliteError(f"the template '{self.spec.name}' has no system turn")
        if TODAY in intro:
            intro = intro.replace(TODAY, datetime.now().strftime('%d %b %Y'))
        said = text if fold else self._trim(text, 'system')
        return Piece(self.spec.system[0] + intro + said + self.spec.system[1])

    def _trim(self, text: str, role: str) -> str:
        return text.strip() if role in self.spec.trim else text

    def _assistant(
        self, message: Message, index: int, call_ids: list[str], lead: str, after_query: bool, last: bool
    ) -> list[Piece]:
        start, text = self.spec.assistant_start, self._trim(content_text(message, index, optional=True), 'assistant')
        thought, text = thoughts(message, text) if self.spec.thinking else ('', text)
        said = written(thought, text) if self.spec.thinking and after_query and (last or thought) else text
        if call_ids and self.tool_format:
            calls = self.tool_format.calls(message['tool_calls'], call_ids, after_text=bool(text))
            said = calls if self.tool_format.silent else said + calls
        else:
            said = self.spec.reply_start + said
        if lead and said.startswith(lead):
            start, said = start + lead, said[len(lead) :]
        return [
            Piece(start),
            Piece(said + self._end, trained=message.get('loss') is not False),
            Piece(self.spec.turn_sep),
        ]

    def _check(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> None:
        if not messages:
            raise SwiftliteError('there are no messages')
        for index, message in enumerate(messages):
            if message.get('role') == 'text':
                raise SwiftliteError('plain text is there to learn from: nothing in it is asked or answered')
            if message.get('role') not in ROLES:
                raise SwiftliteError(
                    f'message {index + 1} has the role {message.get("role")!r}: valid are {", ".join(ROLES)}'
                )
        uses_tools = tools or any(m['role'] == 'tool' or m.get('tool_calls') for m in messages)
        if uses_tools and self.tool_format is None:
            raise SwiftliteError(f"the template '{self.spec.name}' has no tools")
        if tools and self.tool_format and self.tool_format.in_user(tools):
            first = messages[messages[0]['role'] == 'system' :][:1]
            if not first or first[0]['role'] != 'user':
                raise SwiftliteError(f"the template '{self.spec.name}' puts tools into a first message of the user")
        turns = [
            m['role']
            for m in messages[messages[0]['role'] == 'system' :]
            if m['role'] != 'tool' and not m.get('tool_calls')
        ]
        if self.spec.system_in_user and (not turns or turns != (['user', 'assistant'] * len(turns))[: len(turns)]):
            raise SwiftliteError(
                f"the template '{self.spec.name}' takes user and assistant messages in turn, "
                'after one system message at most'
            )
        if self.spec.system_first and any(m['role'] == 'system' for m in messages[1:]):
            raise SwiftliteError(f"the template '{self.spec.name}' takes a system message at the start only")
        if self.spec.single_turn and [m['role'] for m in messages if m['role'] != 'system'] not in (
            ['user'],
            ['user', 'assistant'],
        ):
            raise SwiftliteError(
                f"the template '{self.spec.name}' takes one user message and its answer: "
                'this is a completion model, not a chat model'
            )


def last_round(messages: Sequence[Message]) -> list[Message]:
    """The messages, with every answer before the last message of the user as context alone."""
    last = max((index for index, message in enumerate(messages) if message['role'] == 'user'), default=-1)
    earlier = [{**m, 'loss': False} if m['role'] == 'assistant' else m for m in messages[: last + 1]]
    return [*earlier, *messages[last + 1 :]]


def content_text(message: Message, index: int, optional: bool = False) -> str:
    """What a message says. SwiftliteError for what is no text; `optional`: null is ''."""
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
