"""What every way to write tools has in common: where the text goes, and how calls are read back from a reply."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from swiftlite.errors import SwiftliteError

Call = dict[str, Any]
Tools = list[dict[str, Any]]
SPACE = ' \n\r\t'


class ToolFormat(ABC):
    """Writes tools, calls and results into a prompt, and reads the calls of a reply.

    `tools` are OpenAI's ``{'type': 'function', 'function': {…}}``. The places that a format leaves empty are ''.
    """

    name: ClassVar[str]
    call: ClassVar[tuple[str, str]]  # the text around one call, '' where there is none
    at: ClassVar[Literal['first', 'last']] = 'first'  # the user's turn that `before_user` and `in_user` belong to
    silent: ClassVar[bool] = False  # a turn with calls says nothing beside them: what is given is left out
    arguments: ClassVar[str] = 'arguments'  # the key that holds them

    def intro(self) -> str:
        """Starts the first system turn of a conversation with tools."""
        return ''

    def system(self, tools: Tools) -> str:
        """A part of the first system turn, after a blank line."""
        return ''

    def before_user(self, tools: Tools) -> str:
        """Stands before one of the user's turns, see `at`."""
        return ''

    def in_user(self, tools: Tools) -> str:
        """The head of one of the user's turns, see `at`."""
        return ''

    @abstractmethod
    def calls(self, calls: Sequence[Mapping[str, Any]], ids: Sequence[str] = (), after_text: bool = False) -> str:
        """The calls as the assistant makes them, with `ids`, behind what was said; `after_text`: if anything was.

        Without ids: as the model writes them. SwiftliteError for more calls than the format can write.
        """

    @abstractmethod
    def results(self, contents: Sequence[str], ids: Sequence[str], user: tuple[str, str]) -> str:
        """The turns of neighbouring tool results; `ids`: those of the calls, `user`: the text around a user's turn."""

    @abstractmethod
    def find(self, text: str, fresh: bool = True) -> int:
        """Where the first call of a reply starts, or may be starting, -1 if nowhere.

        `fresh`: nothing was said before `text`, so that it may be a call without a marker.
        """

    @abstractmethod
    def sure(self, text: str, fresh: bool = True) -> int:
        """How many characters at the start of `text` belong to no call, whatever follows."""

    @abstractmethod
    def complete(self, text: str, start: int, final: bool = False) -> tuple[int, list[Call]] | None:
        """(end, calls) of the whole call at `start`, None while it is not whole, and for what is none.

        With `final` off an end marker is waited for; with it on, the text may end before.
        """

    def parse(self, text: str) -> tuple[str | None, list[Call]]:
        """Split a whole reply into what was said (None if nothing) and its calls, with arguments as JSON text.

        What is no JSON object with a name stays in the text, so that nothing the model wrote is lost.
        """
        said, calls, position = '', list[Call](), 0
        while (offset := self.find(text[position:], fresh=not said.strip())) >= 0:
            start = position + offset
            found = self.complete(text, start, final=True)
            end = found[0] if found else start + max(1, len(self.call[0]))
            said += text[position : start if found else end]
            calls += found[1] if found else []
            position = end
        said += text[position:]
        return (said.strip() if calls else said) or None, calls


def marker_start(text: str, marker: str) -> int:
    """Where `marker`, or the beginning of one that `text` ends with, stands; the length of `text` if nowhere."""
    if (found := text.find(marker)) >= 0:
        return found
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:size]):
            return len(text) - size
    return len(text)


def read_json(text: str, start: int) -> tuple[Any, int] | None:
    """(value, end) of the JSON value at `start`, after white space; None where there is none or only a part."""
    while start < len(text) and text[start] in SPACE:
        start += 1
    try:
        # a JSON decoder, not a search for an end marker: the marker may stand inside a string
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def read_call(value: Any, keys: Sequence[str] = ('arguments',), needed: bool = False) -> Call | None:
    """The call that a JSON value describes; None if it has no name, or arguments that are no object.

    With `needed`, arguments must be there: the value alone says that it is a call.
    """
    if not isinstance(value, dict) or not isinstance(value.get('name'), str):
        return None
    if needed and not any(key in value for key in keys):
        return None
    arguments: Any = next((value[key] for key in keys if key in value), {})
    if not isinstance(arguments, dict):
        return None
    return {'type': 'function', 'function': {'name': value['name'], 'arguments': to_json(arguments)}}


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as the ``tojson`` filter of Hugging Face chat templates writes it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def name_and_arguments(call: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Of a call whose arguments are an object, or OpenAI's JSON text of one. SwiftliteError for anything else."""
    function = call.get('function', call)
    name, arguments = function.get('name'), function.get('arguments', {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or '{}')
        except (ValueError, RecursionError):
            raise SwiftliteError(f"the arguments of the tool call '{name}' are not JSON: {arguments[:80]!r}") from None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise SwiftliteError(f'a tool call needs a name and an object of arguments, not {to_json(function)[:80]}')
    return name, arguments
