"""Answers that call tools: as one text to compare, and as OpenAI's API takes them."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
OURS = ('choices', 'loss')  # what rows say of a message beside the API's fields


def as_text(content: Any, calls: Sequence[Mapping[str, Any]] | None) -> str:
    """What was said, and each call on a line of its own as ``{"name", "arguments"}`` with sorted keys.

    The same for a call however its arguments were given (JSON text or an object) and with whatever id.
    """
    said = [content.strip() if calls else content] if isinstance(content, str) and content else []
    return '\n'.join([*said, *(_call(call) for call in calls or ())])


def api_messages(messages: Sequence[Message]) -> list[Message]:
    """Messages for a server: arguments of calls as text, and ids that tie results to calls where rows have none."""
    found: list[Message] = []
    open_ids: list[str] = []
    ids = (f'call_{number}' for number in itertools.count())
    for message in messages:
        made = {key: value for key, value in message.items() if key not in OURS}
        if made.get('tool_calls'):
            made['tool_calls'] = [_api_call(call, next(ids)) for call in made['tool_calls']]
            open_ids = [call['id'] for call in made['tool_calls']]
        elif made['role'] == 'tool' and not made.get('tool_call_id'):
            made['tool_call_id'] = open_ids.pop(0) if open_ids else 'call_0'
        found.append(made)
    return found


def _call(call: Mapping[str, Any]) -> str:
    name, arguments = _parts(call)
    return json.dumps({'arguments': arguments, 'name': name}, ensure_ascii=False, sort_keys=True)


def _api_call(call: Mapping[str, Any], id: str) -> Message:
    name, arguments = _parts(call)
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {'id': call.get('id') or id, 'type': 'function', 'function': {'name': name, 'arguments': text}}


def _parts(call: Mapping[str, Any]) -> tuple[Any, Any]:
    """(name, arguments as an object where they are one)."""
    function = call.get('function') or call
    arguments = function.get('arguments', {})
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # else it stays the text that it is
            arguments = json.loads(arguments)
    return function.get('name'), arguments
