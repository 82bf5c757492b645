"""How a template writes tools, tool calls and tool results, and how calls are read back from a reply."""

import json
from dataclasses import dataclass
from typing import Any

from swiftlite.errors import SwiftliteError


@dataclass(frozen=True)
class ToolFormat:
    """The text around tool schemas (appended to the system text), calls (in assistant turns) and results."""

    before_tools: str
    after_tools: str
    call: tuple[str, str]
    result: tuple[str, str]

    def system(self, tools: list[dict[str, Any]]) -> str:
        """The block that describes `tools` (OpenAI's ``{'type': 'function', 'function': {…}}``), one JSON a line."""
        return self.before_tools + ''.join(f'\n{to_json(tool)}' for tool in tools) + self.after_tools

    def calls(self, tool_calls: list[dict[str, Any]]) -> str:
        """Calls as the model writes them. Arguments are an object, or OpenAI's JSON text of one."""
        return '\n'.join(f'{self.call[0]}\n{_call_json(call)}\n{self.call[1]}' for call in tool_calls)

    def results(self, contents: list[str]) -> str:
        """Neighbouring tool results, which share one user turn."""
        return '\n'.join(f'{self.result[0]}\n{content}\n{self.result[1]}' for content in contents)

    def parse(self, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        """Split a reply into what was said and the calls in it, with arguments as JSON text.

        A call that is not a JSON object with a name stays in the text, so that nothing the model wrote is lost.
        The end marker may be missing: a reply can end with the call itself.
        """
        said, calls, position = '', [], 0
        while (start := text.find(self.call[0], position)) >= 0:
            parsed = self._parse_one(text, start + len(self.call[0]))
            end = start + len(self.call[0]) if parsed is None else parsed[1]
            said += text[position : start if parsed else end]
            if parsed:
                calls.append(parsed[0])
            position = end
        said += text[position:]
        if calls:
            said = said.strip()
        return said or None, calls

    def _parse_one(self, text: str, start: int) -> tuple[dict[str, Any], int] | None:
        start += len(text[start:]) - len(text[start:].lstrip())
        try:
            # a JSON decoder, not a search for the end marker: the marker may stand inside a string
            value, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not isinstance(value.get('name'), str):
            return None
        arguments = value.get('arguments', {})
        if not isinstance(arguments, dict):
            return None
        rest = text[end:].lstrip()
        if rest.startswith(self.call[1]):
            end = len(text) - len(rest) + len(self.call[1])
        elif rest:
            return None
        function = {'name': value['name'], 'arguments': to_json(arguments)}
        return {'type': 'function', 'function': function}, end


def to_json(value: Any) -> str:
    """JSON as the ``tojson`` filter of Hugging Face chat templates writes it."""
    return json.dumps(value, ensure_ascii=False)


def _call_json(call: dict[str, Any]) -> str:
    function = call.get('function', call)
    name, arguments = function.get('name'), function.get('arguments', {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or '{}')
        except ValueError:
            raise SwiftliteError(f"the arguments of the tool call '{name}' are not JSON: {arguments[:80]!r}") from None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise SwiftliteError(f'a tool call needs a name and an object of arguments, not {to_json(function)[:80]}')
    return f'{{"name": "{name}", "arguments": {to_json(arguments)}}}'


# Hermes (Nous Research) as in Qwen2.5's own chat template
HERMES = ToolFormat(
    before_tools=(
        '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n'
        'You are provided with function signatures within <tools></tools> XML tags:\n<tools>'
    ),
    after_tools=(
        '\n</tools>\n\nFor each function call, return a json object with function name and arguments within '
        '<tool_call></tool_call> XML tags:\n<tool_call>\n'
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    ),
    call=('<tool_call>', '</tool_call>'),
    result=('<tool_response>', '</tool_response>'),
)
FORMATS: dict[str, ToolFormat] = {'hermes': HERMES}
