"""OpenAI chat messages and tools, checked and brought to the plain shape the template reads."""

from __future__ import annotations

import json
import re
from typing import Any

from swiftlite.errors import nearest
from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import ChatBody, TemplateOptions, TokenizeBody
from swiftlite.template import Template

TOOL_NAME = re.compile(r'[\w.:/-]{1,128}')
ROLES = {'system': 'system', 'developer': 'system', 'user': 'user', 'assistant': 'assistant', 'tool': 'tool'}


def template_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check `messages`; return {'role', 'content': str, 'tool_calls'?, …}, text parts joined and arguments parsed."""
    return [_message(message, f'messages[{index}]') for index, message in enumerate(messages)]


def template_options(body: ChatBody | TokenizeBody, template: Template) -> dict[str, Any]:
    """Keyword arguments of `Template.encode` that the request asks for: whether the model thinks first."""
    options = body.chat_template_kwargs or TemplateOptions()
    if options.unknown:
        raise ApiError(
            f'chat_template_kwargs has {", ".join(options.unknown)}; valid is enable_thinking'
            f'{nearest(options.unknown[0], ["enable_thinking"])}.',
            param='chat_template_kwargs',
        )
    thinking = options.enable_thinking
    effort = getattr(body, 'reasoning_effort', None)
    if effort not in (None, 'none'):
        raise ApiError(
            'reasoning_effort was refused: thinking has no levels here; "none" or chat_template_kwargs '
            '{"enable_thinking": …} switch it.',
            param='reasoning_effort',
        )
    if effort == 'none' and thinking is None and template.spec.thinking == 'optional':
        thinking = False
    return {} if thinking is None else {'enable_thinking': thinking}


def check_tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Check that every tool is {'type': 'function', 'function': {'name', 'description'?, 'parameters'?}}."""
    names = set()
    for index, tool in enumerate(tools or []):
        path = f'tools[{index}]'
        if tool.get('type', 'function') != 'function':
            raise ApiError(f"{path}.type must be 'function', not {tool['type']!r}.", param=path)
        function = tool.get('function')
        if not isinstance(function, dict) or not isinstance(function.get('name'), str) or not function['name']:
            raise ApiError(f'{path}.function must be an object with a name.', param=f'{path}.function')
        name, parameters = function['name'], function.get('parameters') or {}
        if not TOOL_NAME.fullmatch(name):
            raise ApiError(
                f'{path}.function.name is {name!r:.140}; valid are up to 128 letters, digits and _ . : / -.',
                param=f'{path}.function.name',
            )
        if name in names:
            raise ApiError(f"{path}.function.name '{name}' is the name of two tools.", param=f'{path}.function.name')
        names.add(name)
        if not isinstance(parameters, dict) or parameters.get('type', 'object') != 'object':
            raise ApiError(
                f'{path}.function.parameters must be a JSON schema of an object.', param=f'{path}.function.parameters'
            )
        if not isinstance(parameters.get('properties') or {}, dict):
            raise ApiError(
                f'{path}.function.parameters.properties must be an object.', param=f'{path}.function.parameters'
            )
        if not isinstance(function.get('description') or '', str):
            raise ApiError(f'{path}.function.description must be a string.', param=f'{path}.function.description')
        if not isinstance(function.get('strict') or False, bool):
            raise ApiError(f'{path}.function.strict must be true or false.', param=f'{path}.function.strict')
    return tools or None


def _message(message: dict[str, Any], path: str) -> dict[str, Any]:
    role = message.get('role')
    if not isinstance(role, str) or role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ''
        raise ApiError(f'{path}.role is {role!r}; valid are {", ".join(ROLES)}{hint}.', param=f'{path}.role')
    plain: dict[str, Any] = {'role': ROLES[role]}
    calls = message.get('tool_calls')
    if calls:
        if role != 'assistant':
            raise ApiError(f'{path}.tool_calls belong to the assistant, not to {role}.', param=f'{path}.tool_calls')
        if not isinstance(calls, list):
            raise ApiError(f'{path}.tool_calls must be a list.', param=f'{path}.tool_calls')
        plain['tool_calls'] = [_tool_call(call, f'{path}.tool_calls[{i}]') for i, call in enumerate(calls)]
    if message.get('content') is None and not calls:
        raise ApiError(f'{path}.content is required.', param=f'{path}.content')
    plain['content'] = _content(message.get('content'), f'{path}.content')
    for key in ('name', 'tool_call_id', 'reasoning_content'):
        value = message.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise ApiError(f'{path}.{key} must be a string.', param=f'{path}.{key}')
            plain[key] = value
    return plain


def _content(content: Any, path: str) -> str:
    if content is None:
        return ''
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(f'{path} must be a string or a list of parts.', param=path)
    return '\n'.join(_text_part(part, f'{path}[{index}]') for index, part in enumerate(content))


def _text_part(part: Any, path: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not isinstance(part.get('type'), str):
        raise ApiError(f"{path} must be an object like {{'type': 'text', 'text': '…'}}.", param=path)
    if part['type'] not in ('text', 'input_text', 'output_text', 'refusal'):
        raise ApiError(f'{path} is a part of type {part["type"]!r}, but the model reads text only.', param=path)
    text = part.get('refusal' if part['type'] == 'refusal' else 'text')
    if not isinstance(text, str):
        raise ApiError(f'{path}.text must be a string.', param=f'{path}.text')
    return text


def _tool_call(call: Any, path: str) -> dict[str, Any]:
    function = call.get('function') if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get('name'), str):
        raise ApiError(f'{path}.function must be an object with a name and arguments.', param=path)
    arguments = function.get('arguments') or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
            json.dumps(arguments, ensure_ascii=False).encode()  # escapes within escapes: `parse_json` did not see them
        except UnicodeEncodeError:
            raise ApiError(f'{path}.function.arguments has half of a surrogate pair.', param=path) from None
        except (ValueError, RecursionError) as error:
            raise ApiError(f'{path}.function.arguments is not valid JSON: {error}.', param=path) from None
    if not isinstance(arguments, dict):
        raise ApiError(f'{path}.function.arguments must be a JSON object.', param=path)
    known = {'id': call['id']} if isinstance(call.get('id'), str) else {}
    return {**known, 'type': 'function', 'function': {'name': function['name'], 'arguments': arguments}}
