"""The tool formats by name: Hermes (Qwen), Llama 3.1's JSON, and Mistral's."""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftlite.errors import SwiftliteError
from swiftlite.template.tool_format import (
    SPACE,
    Call,
    ToolFormat,
    Tools,
    marker_start,
    name_and_arguments,
    read_call,
    read_json,
    to_json,
)


class Hermes(ToolFormat):
    """Nous Research's, as in Qwen2.5's own chat template: schemas in the system turn, calls and results in tags."""

    name = 'hermes'
    call = ('<tool_call>', '</tool_call>')
    result = ('<tool_response>', '</tool_response>')
    before_tools = (
        '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n'
        'You are provided with function signatures within <tools></tools> XML tags:\n<tools>'
    )
    after_tools = (
        '\n</tools>\n\nFor each function call, return a json object with function name and arguments within '
        '<tool_call></tool_call> XML tags:\n<tool_call>\n'
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )

    def system(self, tools: Tools) -> str:
        return self.before_tools + ''.join(f'\n{to_json(tool)}' for tool in tools) + self.after_tools

    def calls(self, calls: Sequence[Mapping[str, Any]], ids: Sequence[str] = (), after_text: bool = False) -> str:
        made = '\n'.join(f'{self.call[0]}\n{self._written(call)}\n{self.call[1]}' for call in calls)
        return '\n' * after_text + made

    def results(self, contents: Sequence[str], ids: Sequence[str], user: tuple[str, str]) -> str:
        told = '\n'.join(f'{self.result[0]}\n{content}\n{self.result[1]}' for content in contents)
        return user[0] + told + user[1]

    def find(self, text: str, fresh: bool = True) -> int:
        return text.find(self.call[0])

    def sure(self, text: str, fresh: bool = True) -> int:
        return marker_start(text, self.call[0])

    def complete(self, text: str, start: int, final: bool = False) -> tuple[int, list[Call]] | None:
        start += len(self.call[0])
        if not final and text.find(self.call[1], start) < 0:
            return None
        if (read := read_json(text, start)) is None or (call := read_call(read[0])) is None:
            return None
        rest = text[read[1] :].lstrip()
        if rest.startswith(self.call[1]):
            return len(text) - len(rest) + len(self.call[1]), [call]
        return None if rest or not final else (read[1], [call])

    def _written(self, call: Mapping[str, Any]) -> str:
        name, arguments = name_and_arguments(call)
        return f'{{"name": "{name}", "arguments": {to_json(arguments)}}}'


class Llama3(ToolFormat):
    """Llama 3.1's for functions of one's own: schemas in the first user turn, one call, the whole reply, as JSON."""

    name = 'llama3'
    call = ('', '')
    silent = True
    arguments = 'parameters'
    tag = '<|python_tag|>'  # may stand before a call
    between = SPACE + ';'  # what the model writes between two calls
    keys = ('"name"', '"type"', '"function"', '"parameters"')
    result = ('<|start_header_id|>ipython<|end_header_id|>\n\n', '<|eot_id|>')
    before_tools = (
        'Given the following functions, please respond with a JSON for a function call '
        'with its proper arguments that best answers the given prompt.\n\n'
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
        'Do not use variables.\n\n'
    )

    def intro(self) -> str:
        return 'Environment: ipython\n'

    def in_user(self, tools: Tools) -> str:
        return self.before_tools + ''.join(f'{to_json(tool, indent=4)}\n\n' for tool in tools)

    def calls(self, calls: Sequence[Mapping[str, Any]], ids: Sequence[str] = (), after_text: bool = False) -> str:
        if len(calls) > 1:
            raise SwiftliteError(f'this model makes one tool call in a turn, not {len(calls)}')
        name, arguments = name_and_arguments(calls[0])
        return f'{{"name": "{name}", "parameters": {to_json(arguments)}}}'

    def results(self, contents: Sequence[str], ids: Sequence[str], user: tuple[str, str]) -> str:
        return ''.join(self.result[0] + to_json(content) + self.result[1] for content in contents)

    def find(self, text: str, fresh: bool = True) -> int:
        rest = text.lstrip(self.between)
        return 0 if fresh and rest and self._may_be_call(rest) else -1

    def sure(self, text: str, fresh: bool = True) -> int:
        rest = text.lstrip(self.between)
        return 0 if fresh and (not rest or self._may_be_call(rest)) else len(text)

    def _may_be_call(self, text: str) -> bool:
        if text.startswith(self.tag) or self.tag.startswith(text):
            return True
        rest = text[1:].lstrip()
        return text.startswith('{') and any(key.startswith(rest[: len(key)]) for key in self.keys)

    def complete(self, text: str, start: int, final: bool = False) -> tuple[int, list[Call]] | None:
        start = len(text) - len(text[start:].lstrip(self.between))
        start += len(self.tag) * text.startswith(self.tag, start)
        read = read_json(text, start)
        call = read and read_call(read[0], (self.arguments, 'arguments'), needed=True)
        return (read[1], [call]) if read and call else None


class Mistral(ToolFormat):
    """Mistral's from 7B v0.3 to Nemo: schemas before the last user turn, a list of calls, results with call ids."""

    call = ('[TOOL_CALLS]', '')
    at = 'last'
    silent = True

    def __init__(self, name: str, space: str) -> None:
        self.name = name  # type: ignore[misc]
        self.space = space  # between a marker and what it marks

    def before_user(self, tools: Tools) -> str:
        written = []
        for tool in tools:
            function = tool.get('function', tool)
            # texts are put between quotes as they stand, as the model saw them
            pairs = [
                f'"{key}": "{value}"' if isinstance(value, str) else f'"{key}": {to_json(value)}'
                for key, value in function.items()
                if key != 'return'
            ]
            written.append('{"type": "function", "function": {' + ', '.join(pairs) + '}}')
        return f'[AVAILABLE_TOOLS]{self.space}[' + ', '.join(written) + '][/AVAILABLE_TOOLS]'

    def calls(self, calls: Sequence[Mapping[str, Any]], ids: Sequence[str] = (), after_text: bool = False) -> str:
        made = []
        for index, call in enumerate(calls):
            name, arguments = name_and_arguments(call)
            call_id = f', "id": "{short_id(ids[index])}"' if ids else ''
            made.append(f'{{"name": {to_json(name)}, "arguments": {to_json(arguments)}{call_id}}}')
        return f'{self.call[0]}{self.space}[' + ', '.join(made) + ']'

    def results(self, contents: Sequence[str], ids: Sequence[str], user: tuple[str, str]) -> str:
        return ''.join(
            f'[TOOL_RESULTS]{self.space}{{"content": {content}, "call_id": "{short_id(call_id)}"}}[/TOOL_RESULTS]'
            for content, call_id in zip(contents, ids, strict=True)
        )

    def find(self, text: str, fresh: bool = True) -> int:
        bare = len(text) - len(text.lstrip())
        if fresh and self._may_be_list(text[bare:]):  # the marker is a special token, which decoding leaves out
            return bare
        return text.find(self.call[0])

    def sure(self, text: str, fresh: bool = True) -> int:
        bare = len(text) - len(text.lstrip())
        if fresh and (bare == len(text) or self._may_be_list(text[bare:])):
            return bare
        return marker_start(text, self.call[0])

    def _may_be_list(self, text: str) -> bool:
        plain = ''.join(text[:40].split())
        return bool(plain) and ('[{"name":'.startswith(plain) or plain.startswith('[{"name":'))

    def complete(self, text: str, start: int, final: bool = False) -> tuple[int, list[Call]] | None:
        start += len(self.call[0]) * text.startswith(self.call[0], start)
        if (read := read_json(text, start)) is None or not isinstance(read[0], list) or not read[0]:
            return None
        calls = [call for value in read[0] if (call := read_call(value, needed=True))]
        return (read[1], calls) if len(calls) == len(read[0]) else None


def short_id(call_id: str) -> str:
    """Nine letters and digits, as Mistral's models know ids: the last of a longer id, zeros before a shorter one."""
    return ''.join(c for c in call_id if c.isascii() and c.isalnum())[-9:].rjust(9, '0')


FORMATS: dict[str, ToolFormat] = {
    format_.name: format_ for format_ in (Hermes(), Llama3(), Mistral('mistral', ' '), Mistral('mistral-nemo', ''))
}
