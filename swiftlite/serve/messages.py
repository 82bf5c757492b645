"""OpenAI chat messages and tools, checked and brought to the plain shape the template reads."""

from __future__ import annotations

import json
from typing import Any

from swiftlite.errors import nearest
from swiftlite.serve.errors import ApiError

ROLES = {'system': 'system', 'developer': 'system', 'user': 'user', 'assistant': 'assistant', 'tool': 'tool'}


def template_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check `messages`; return {'role', 'content': str, 'tool_calls'?, …}, text parts joined and arguments parsed."""
    return [_message(message, f'messages[{index}]') for index, message in enumerate(messages)]


def check_tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Check that every tool is {'type': 'function', 'function': {'name', 'description'?, 'parameters'?}}."""
    for index, tool in enumerate(tools or []):
        path = f'tools[{index}]'
        if tool.get('type', 'function') != 'function':
            raise ApiError(f"{path}.type must be 'function', not {tool['type']!r}.", param=path)
        function = tool.get('function')
        if not isinstance(function, dict) or not isinstance(function.get('name'), str) or not function['name']:
            raise ApiError(f'{path}.function must be an object with a name.', param=f'{path}.function')
        if not isinstance(function.get('parameters') or {}, dict):
            raise ApiError(f'{path}.function.parameters must be a JSON schema object.', param=f'{path}.function')
        check_text(json.dumps(tool, ensure_ascii=False), path)
    return tools or None


def check_text(text: str, path: str) -> str:
    """Refuse text that is not Unicode (lone surrogates), which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(f'{path} has half of a surrogate pair at character {error.start}.', param=path) from None
    return text


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
    for key in ('name', 'tool_call_id'):
        value = message.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise ApiError(f'{path}.{key} must be a string.', param=f'{path}.{key}')
            plain[key] = check_text(value, f'{path}.{key}')
    return plain


def _content(content: Any, path: str) -> str:
    if content is None:
        return ''
    if isinstance(content, str):
        return check_text(content, path)
    if not isinstance(content, list):
        raise ApiError(f'{path} must be a string or a list of parts.', param=path)
    return '\n'.join(_text_part(part, f'{path}[{index}]') for index, part in enumerate(content))


def _text_part(part: Any, path: str) -> str:
    if isinstance(part, str):
        return check_text(part, path)
    if not isinstance(part, dict) or not isinstance(part.get('type'), str):
        raise ApiError(f"{path} must be an object like {{'type': 'text', 'text': '…'}}.", param=path)
    if part['type'] not in ('text', 'input_text', 'output_text', 'refusal'):
        raise ApiError(f'{path} is a part of type {part["type"]!r}, but the model reads text only.', param=path)
    text = part.get('refusal' if part['type'] == 'refusal' else 'text')
    if not isinstance(text, str):
        raise ApiError(f'{path}.text must be a string.', param=f'{path}.text')
    return check_text(text, f'{path}.text')


def _tool_call(call: Any, path: str) -> dict[str, Any]:
    function = call.get('function') if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get('name'), str):
        raise ApiError(f'{path}.function must be an object with a name and arguments.', param=path)
    arguments = function.get('arguments') or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise ApiError(f'{path}.function.arguments is not valid JSON: {error}.', param=path) from None
    if not isinstance(arguments, dict):
        raise ApiError(f'{path}.function.arguments must be a JSON object.', param=path)
    check_text(function['name'] + json.dumps(arguments, ensure_ascii=False), f'{path}.function')
    return {'type': 'function', 'function': {'name': function['name'], 'arguments': arguments}}
