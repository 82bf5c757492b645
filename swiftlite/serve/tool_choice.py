"""tools, tool_choice and the form of an answer: what the model gets to see, and what it may write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swiftlite.engine.grammar.params import StructuredOutputsParams
from swiftlite.errors import nearest
from swiftlite.serve.errors import ApiError
from swiftlite.serve.messages import check_tools
from swiftlite.serve.protocol import ChatBody
from swiftlite.serve.tool_grammar import CallGrammar
from swiftlite.template import Template
from swiftlite.template.tools import FORMATS

CHOICES = ('none', 'auto', 'required')


@dataclass(frozen=True)
class ToolUse:
    """`tools`: those in the prompt, None for none. `structure`: what the whole reply has to match."""

    tools: list[dict[str, Any]] | None
    structure: StructuredOutputsParams | None


def tool_use(body: ChatBody, template: Template, structure: StructuredOutputsParams | None) -> ToolUse:
    """Settle `tools` and `tool_choice` of a request whose other fields ask for `structure`.

    'required' and a named tool force calls with arguments of the tool's schema; the structure is then moot. With
    'auto', the reply is either calls or what the structure says; tools with `strict` get calls of their schema only.
    """
    tools = check_tools(body.tools)
    choice, name = _choice(body.tool_choice, tools)
    if tools is None or choice == 'none':
        return ToolUse(None, structure)
    if template.spec.tools is None:
        raise ApiError(f"The template '{template.name}' knows no tools.", param='tools')
    strict = any(tool['function'].get('strict') for tool in tools)
    if choice == 'auto' and structure is None and not strict:
        return ToolUse(tools, None)
    offered = [tool for tool in tools if name in (None, tool['function']['name'])]
    grammar = CallGrammar(FORMATS[template.spec.tools], offered, template.tokenizer)
    if choice != 'auto':
        many = name is None and body.parallel_tool_calls
        return ToolUse(tools, StructuredOutputsParams(grammar=grammar.forced(many)))
    if structure is not None:
        if structure.kind not in ('json', 'json_object'):
            raise ApiError(
                f'tools and a {structure.kind} exclude each other: the reply could not be a call; '
                'give a JSON schema, or tool_choice "none".',
                param='tools',
            )
        schema = structure.json if isinstance(structure.json, dict) else {'type': 'object'}
        return ToolUse(tools, StructuredOutputsParams(grammar=grammar.or_answer(schema, body.parallel_tool_calls)))
    return ToolUse(tools, StructuredOutputsParams(grammar=grammar.in_text()))


def hides_calls(template: Template) -> bool:
    """Whether the mark of a call is a special token, which text leaves out unless it is asked to keep them."""
    if template.spec.tools is None:
        return False
    mark = FORMATS[template.spec.tools].call[0]
    return any(token.special and str(token) == mark for token in template.tokenizer.added_tokens_decoder.values())


def _choice(choice: str | dict[str, Any] | None, tools: list[dict[str, Any]] | None) -> tuple[str, str | None]:
    """'none', 'auto' or 'required', and the name of the one tool that is required."""
    if choice is None:
        return 'auto', None
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise ApiError(
                f'tool_choice is {choice!r:.60}; valid are {", ".join(CHOICES)}, or an object that names a tool'
                f'{nearest(choice, CHOICES)}.',
                param='tool_choice',
            )
        if tools is None and choice == 'required':
            raise ApiError('tool_choice needs tools.', param='tool_choice')
        return choice, None
    function = choice.get('function')
    name = function.get('name') if isinstance(function, dict) else None
    if choice.get('type', 'function') != 'function' or not isinstance(name, str):
        raise ApiError(
            'tool_choice must be an object like {"type": "function", "function": {"name": …}}.', param='tool_choice'
        )
    names = [tool['function']['name'] for tool in tools or []]
    if not names:
        raise ApiError('tool_choice needs tools.', param='tool_choice')
    if name not in names:
        raise ApiError(
            f"tool_choice names '{name:.140}', but the tools are {', '.join(names)}{nearest(name, names)}.",
            param='tool_choice',
        )
    return 'required', name
