"""Tool calls as a Lark grammar for llguidance: the template's own writing of a call, with the tools' schemas in it."""

from __future__ import annotations

import json
import re
from typing import Any

from swiftlite.errors import SwiftliteError
from swiftlite.serve.errors import ApiError
from swiftlite.template.tool_format import ToolFormat, to_json

NAMES = ('FIRST-NAME', 'SECOND-NAME')
ARGUMENTS = {'@': 0}
IDS = ('first0000', 'second000')
# JSON as json.dumps writes it, the way templates write calls
STYLE = {'whitespace_flexible': False, 'item_separator': ', ', 'key_separator': ': '}
PLACE = re.compile(r'grammar cannot be used: (?:at (\d+)\(\d+\): )?(?:failed to compile JSON schema: )?(.*)')
HEAD_LINES = 3  # before those of the tools, of which each has two
COMBINED = ('allOf', 'anyOf', 'oneOf', 'not', '$ref', 'patternProperties', 'unevaluatedProperties')


class CallGrammar:
    """Grammars of replies that call `tools`, in the text that `format` writes around a call.

    That text is not repeated here: one and two calls with placeholders are written, and taken apart at them. Marks that
    are tokens of their own are matched as such. Objects of a schema that list their properties are closed unless they
    say otherwise, so that a call holds no argument which the tool does not know.
    """

    def __init__(self, format: ToolFormat, tools: list[dict[str, Any]], tokenizer: Any) -> None:
        marks = {str(text): number for text, number in tokenizer.get_added_vocab().items()}
        self._marks = {text: f'<[{number}]>' for text, number in sorted(marks.items(), key=lambda m: -len(m[0]))}
        self._tools = tools
        (self._open, self._after_name, self._close), self._between = _pieces(format)
        self._marked = any(self._open.startswith(mark) for mark in self._marks)

    def forced(self, many: bool) -> str:
        """The reply is a call, or several with `many`."""
        return self._grammar('calls', many)

    def or_answer(self, schema: dict[str, Any], many: bool) -> str:
        """The reply is calls, or JSON of `schema`."""
        return self._grammar('calls | answer', many) + f'answer: {_json(schema)}\n'

    def in_text(self) -> str:
        """The reply is text in which calls may stand. ApiError for a format whose calls begin without a mark."""
        if not self._marked:
            raise ApiError(
                'strict tools need tool_choice "required" or a named tool with this model: '
                'its calls cannot be told from text.',
                param='tools',
            )
        return self._grammar('(TEXT calls)* TEXT', True) + 'TEXT: /(.|\\n)*/\n'

    def _grammar(self, start: str, many: bool) -> str:
        more = f' ({self._text(self._between)} call)*' if many and self._between is not None else ''
        lines = [
            f'start: {start}',
            f'calls: {self._text(self._open)} call{more} {self._text(self._close)}',
            'call: ' + ' | '.join(f'call_{index}' for index in range(len(self._tools))),
        ]
        for index, tool in enumerate(self._tools):
            function = tool['function']
            parameters = {'type': 'object', 'properties': {}, **(function.get('parameters') or {})}
            lines.append(f'call_{index}: {self._text(function["name"] + self._after_name)} arguments_{index}')
            lines.append(f'arguments_{index}: {_json(_closed(parameters))}')
        return '\n'.join(lines) + '\n'

    def _text(self, text: str) -> str:
        """A literal, with the marks in it as tokens."""
        pattern = '|'.join(map(re.escape, self._marks)) or '(?!)'
        parts = [part for part in re.split(f'({pattern})', text) if part]
        return ' '.join(self._marks.get(part) or json.dumps(part, ensure_ascii=False) for part in parts)


def tool_error(message: str) -> ApiError:
    """What the engine says of a grammar from here, said of the tool that it is about."""
    found = PLACE.match(message)
    line, reason = found.groups() if found else (None, message)
    path = f'tools[{(int(line) - HEAD_LINES - 1) // 2}].function.parameters' if line else 'tools'
    return ApiError(f'{path} cannot be used: {reason}', param=path)


def _pieces(format: ToolFormat) -> tuple[list[str], str | None]:
    """The text before a call's name, between name and arguments, and at the end; and the text between two calls."""
    one = _split(format, 1)
    try:
        two = _split(format, 2)
    except SwiftliteError:  # one call is all that a turn can hold
        return one, None
    return one, two[2]


def _split(format: ToolFormat, count: int) -> list[str]:
    calls = [{'function': {'name': name, 'arguments': ARGUMENTS}} for name in NAMES[:count]]
    text = format.calls(calls, IDS[:count], False)
    for number in IDS:
        text = text.replace(f', "id": "{number}"', '')  # a model's calls get their ids from the server
    return re.split('|'.join(map(re.escape, (*NAMES, to_json(ARGUMENTS)))), text)


def _json(schema: dict[str, Any]) -> str:
    return f'%json {json.dumps({**schema, "x-guidance": STYLE})}'


def _closed(schema: Any) -> Any:
    """`schema` without further properties where it says nothing about them, as far as that is plain to see."""
    if not isinstance(schema, dict) or any(key in schema for key in COMBINED):
        return schema
    made = dict(schema)
    if isinstance(schema.get('properties'), dict):
        made['properties'] = {key: _closed(value) for key, value in schema['properties'].items()}
        made.setdefault('additionalProperties', False)
    if isinstance(schema.get('items'), dict):
        made['items'] = _closed(schema['items'])
    return made
