"""The column layouts of fine-tuning data, each turned into messages.

messages [{role, content}] · conversations [{from, value}] (ShareGPT) · conversation [{human, assistant}] ·
instruction/input/output (Alpaca) · query/response · question/A/B/…/answer · text: all but the last with optional
system, history [[query, response], ...] and tools.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from swiftlite.errors import nearest
from swiftlite.registry.datasets import DatasetInfo

ROLES = {
    'system': 'system',
    'developer': 'system',
    'user': 'user',
    'human': 'user',
    'assistant': 'assistant',
    'gpt': 'assistant',
    'bot': 'assistant',
    'model': 'assistant',
    'chatgpt': 'assistant',
    'tool_call': 'tool_call',
    'function_call': 'tool_call',
    'tool': 'tool',
    'tool_response': 'tool',
    'observation': 'tool',
    'function_response': 'tool',
    'ipython': 'tool',
}
QUERY = ('query', 'question', 'problem', 'prompt', 'input')
RESPONSE = ('response', 'answer', 'solution', 'target', 'completion', 'output')
LETTERS = ('A', 'B', 'C', 'D', 'E', 'F', 'G', 'H')
TURNS = ('messages', 'conversations', 'conversation')
MEDIA = ('images', 'image', 'videos', 'video', 'audios', 'audio')
WORSE = ('rejected_response', 'rejected')  # answers of preference training
LAYOUTS = (*TURNS, 'instruction', *QUERY, 'text')
PLAIN = DatasetInfo('')

Messages = list[dict[str, Any]]
Conversation = tuple[Messages, list[dict[str, Any]] | None]


class RowError(Exception):
    """A row that cannot be read; the text is the reason rows are counted under."""


def to_conversation(record: Any, answered: bool = True, info: DatasetInfo = PLAIN) -> Conversation:
    """(messages, tools) of one record; with `answered` off, the last answer may be missing.

    Text without a question ('text', or a response alone) is one message of the role 'text', learned as it stands.

    Raises:
        RowError: the record has no known columns, or one of them holds what it should not.
    """
    if not isinstance(record, Mapping):
        raise RowError(f'the row is {_kind(record)}, not an object')
    if None in record:
        raise RowError('the row has more values than there are columns: texts with commas need quotes')
    if info.columns:
        others = {key: value for key, value in record.items() if key not in info.columns}
        record = others | {new: record[old] for old, new in info.columns.items() if old in record}
    for column in MEDIA:
        if record.get(column):
            raise RowError(f"the row has '{column}', but models read text")
    if answered:
        _refuse_preferences(record)
    messages = _messages(record, answered, info)
    if messages[0]['role'] == 'text':
        return messages, None
    if record.get('system'):
        system = _text(record, 'system')
        if messages[0]['role'] != 'system':
            messages.insert(0, {'role': 'system', 'content': system})
        elif messages[0]['content'] != system:
            raise RowError("the row has a 'system' column and another system message")
    if answered and not any(
        message['role'] == 'assistant' and message.get('loss') is not False for message in messages
    ):
        raise RowError('no assistant message to learn from')
    return messages, _tools(record)


def _refuse_preferences(record: Mapping[str, Any]) -> None:
    """Rows of DPO or KTO say which answers not to give; learnt as they stand they would teach something else."""
    column = next((name for name in WORSE if record.get(name)), None)
    if column is None and isinstance(record.get('label'), bool):
        column = 'label'
    if column is not None:
        raise RowError(f"the row has '{column}' of preference training: without it, its answer alone is learnt")


def _messages(record: Mapping[str, Any], answered: bool, info: DatasetInfo) -> Messages:
    for column in TURNS:
        if record.get(column) is not None:
            return _turns(_decoded(record, column), column, info)
    if record.get('A') is not None and record.get('B') is not None:
        return _choice(record)
    query = next((name for name in QUERY if record.get(name) is not None), None)
    response = next((name for name in RESPONSE if record.get(name) is not None), None)
    if record.get('instruction') is not None and query in (None, 'input') and (response or not answered):
        parts = [_text(record, 'instruction'), _text(record, 'input') if record.get('input') else '']
        asked = '\n'.join(part for part in parts if part)
        return _dialogue(record, asked, _text(record, response) if response else None)
    if query == 'prompt' and isinstance(record['prompt'], list):  # turns, and the answer as turns
        answer = record.get('completion')
        if isinstance(answer, str):
            answer = [{'role': 'assistant', 'content': answer}]
        turns = [*record['prompt'], *(answer if isinstance(answer, list) else [])]
        return _turns(turns, 'prompt', info)
    if query is None and record.get('instruction') is None:
        given = {name for name in record if record[name] not in (None, '', [])}
        alone = 'text' if 'text' in given else 'response' if given == {'response'} else None
        if alone is not None:
            return [{'role': 'text', 'content': _text(record, alone)}]
    if query is None or (response is None and answered):
        raise RowError(_missing(record, query))
    return _dialogue(record, _text(record, query), _text(record, response) if response else None)


def _missing(record: Mapping[str, Any], query: str | None) -> str:
    if 'instruction' in record:
        return f"the row has 'instruction' but no 'output'{_hint(record, RESPONSE)}"
    if query is not None:
        return f"the row has '{query}' but no 'response'{_hint(record, RESPONSE)}"
    for name in (*TURNS, *QUERY, 'text'):
        if record.get(name, '') is None:
            return f"'{name}' is null, not text"
    columns = ', '.join(map(str, record)) or 'none'
    hint = _hint(record, LAYOUTS)
    return f"no 'messages', 'conversations', 'query', 'instruction' or 'text' among the columns ({columns}){hint}"


def _hint(record: Mapping[str, Any], wanted: Sequence[str]) -> str:
    for column in record:
        if column not in wanted and (hint := nearest(str(column), wanted)):
            return f"; '{column}' is given{hint}"
    return ''


def _choice(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A multiple-choice row {question, A, B, …, answer}; the query says under 'choices' which letters there are."""
    name = next((name for name in QUERY if record.get(name) is not None), None)
    if name is None:
        raise RowError("the row has the choices 'A' and 'B', but no 'question'")
    letters = [letter for letter in LETTERS if record.get(letter) is not None]
    question = _text(record, name)
    chinese = any('\u4e00' <= character <= '\u9fff' for character in question)
    ask = '请直接回答正确选项的字母。' if chinese else 'Answer with the letter of the correct choice alone.'
    options = [f'{letter}. {record[letter]}' for letter in letters]
    messages: list[dict[str, Any]] = [
        {'role': 'user', 'content': '\n'.join([question, *options, ask]), 'choices': letters}
    ]
    answer = next((str(record[name]).strip().upper() for name in RESPONSE if record.get(name) is not None), None)
    if answer is not None and answer not in letters:
        raise RowError(f'the answer of a multiple-choice row must be one of its letters ({", ".join(letters)})')
    return [*messages, {'role': 'assistant', 'content': answer}] if answer is not None else messages


def _dialogue(record: Mapping[str, Any], query: str, response: str | None) -> Messages:
    messages: Messages = []
    history = _decoded(record, 'history') if record.get('history') else []
    if not isinstance(history, list):
        raise RowError(f"'history' is {_kind(history)}, not a list of [query, response] pairs")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise RowError("'history' is no list of [query, response] pairs")
        messages += [{'role': 'user', 'content': pair[0]}, {'role': 'assistant', 'content': pair[1]}]
    messages.append({'role': 'user', 'content': query})
    return messages if response is None else [*messages, {'role': 'assistant', 'content': response}]


def _turns(turns: Any, column: str, info: DatasetInfo) -> Messages:
    if not isinstance(turns, list) or not turns:
        raise RowError(f"'{column}' is {_kind(turns)}, not a list of messages")
    roles = {**ROLES, **info.roles}
    messages: Messages = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise RowError(f"'{column}' holds {_kind(turn)}, not a message")
        if _is_pair(turn):
            messages += _pair(turn, column, first=not messages)
            continue
        role = turn.get(info.role_key or ('role' if 'role' in turn else 'from'))
        content = turn.get(info.content_key or ('content' if 'content' in turn else 'value'))
        if not isinstance(role, str) or role not in roles:
            raise RowError(
                f"'{column}' has the role {role!r:.60}; valid are {', '.join(dict.fromkeys(ROLES.values()))}"
            )
        if roles[role] == 'tool_call':
            _add_calls(messages, content, column)
            continue
        calls = turn.get('tool_calls')
        if not isinstance(content, str | list) and not (content is None and calls):
            raise RowError(f"the content of a message in '{column}' is {_kind(content)}, not text")
        message: dict[str, Any] = {'role': roles[role], 'content': content if content is not None else ''}
        if calls:
            message['tool_calls'] = _checked_calls(calls, column)
        for key in ('tool_call_id', 'reasoning_content'):
            if isinstance(turn.get(key), str):
                message[key] = turn[key]
        if 'loss' in turn:
            message['loss'] = bool(turn['loss'])
        messages.append(message)
    return messages


def _is_pair(turn: Mapping[str, Any]) -> bool:
    return 'human' in turn and 'assistant' in turn and 'role' not in turn and 'from' not in turn


def _pair(turn: Mapping[str, Any], column: str, first: bool) -> Messages:
    """The turns of {human, assistant}; the first may bring a system text."""
    if not (isinstance(turn['human'], str) and isinstance(turn['assistant'], str)):
        raise RowError(f"'human' and 'assistant' in '{column}' are not both text")
    said = [{'role': 'user', 'content': turn['human']}, {'role': 'assistant', 'content': turn['assistant']}]
    if first and isinstance(turn.get('system'), str) and turn['system']:
        said.insert(0, {'role': 'system', 'content': turn['system']})
    return said


def _add_calls(messages: Messages, content: Any, column: str) -> None:
    """A turn that is a call, or a list of calls, as JSON; calls that follow each other are one turn."""
    try:
        value = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        raise RowError(f"a tool call in '{column}' is no JSON") from None
    calls = _checked_calls(value if isinstance(value, list) else [value], column)
    if messages and messages[-1]['role'] == 'assistant':
        messages[-1].setdefault('tool_calls', []).extend(calls)
    else:
        messages.append({'role': 'assistant', 'content': '', 'tool_calls': calls})


def _checked_calls(calls: Any, column: str) -> list[dict[str, Any]]:
    """Calls as {'type', 'function': {'name', 'arguments'}, 'id'?}, also of {'name', 'arguments'} alone."""
    if not isinstance(calls, list):
        raise RowError(f"'tool_calls' in '{column}' is {_kind(calls)}, not a list")
    checked = []
    for call in calls:
        function = call.get('function', call) if isinstance(call, dict) else None
        name = function.get('name') if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise RowError(f"a tool call in '{column}' has no name")
        arguments = function.get('arguments', function.get('parameters', {}))
        one: dict[str, Any] = {'type': 'function', 'function': {'name': name, 'arguments': arguments}}
        checked.append(one | ({'id': call['id']} if isinstance(call.get('id'), str) else {}))
    return checked


def _tools(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if not record.get('tools'):
        return None
    tools = _decoded(record, 'tools')
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError(f"'tools' is {_kind(tools)}, not a list of tool descriptions")
    return [tool if 'function' in tool else {'type': 'function', 'function': tool} for tool in tools]


def _decoded(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column; text is read as JSON, as CSV files need it."""
    value = record[column]
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"'{column}' is text that is not valid JSON") from error


def _text(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise RowError(f"'{column}' is {_kind(value)}, not text")
    return value


def _kind(value: Any) -> str:
    kinds = {dict: 'an object', list: 'a list', str: 'text', bool: 'true/false', type(None): 'null'}
    if isinstance(value, list) and not value:
        return 'an empty list'
    return kinds.get(type(value), 'a number')
