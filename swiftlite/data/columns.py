"""The column layouts of fine-tuning data, each turned into messages.

messages [{role, content}] · conversations [{from, value}] (ShareGPT) · instruction/input/output (Alpaca) ·
query/response · question/A/B/…/answer, all with optional system, history [[query, response], ...] and tools.
"""

import json
from collections.abc import Mapping
from typing import Any

from swiftlite.errors import nearest

ROLES = {
    'system': 'system',
    'user': 'user',
    'human': 'user',
    'assistant': 'assistant',
    'gpt': 'assistant',
    'bot': 'assistant',
    'tool': 'tool',
    'observation': 'tool',
    'function_response': 'tool',
}
QUERY = ('query', 'question', 'problem', 'prompt')
RESPONSE = ('response', 'answer', 'solution', 'target', 'completion')
LETTERS = ('A', 'B', 'C', 'D', 'E', 'F', 'G', 'H')
MEDIA = ('images', 'image', 'videos', 'video', 'audios', 'audio')
LAYOUTS = ('messages', 'conversations', 'instruction', *QUERY)

Conversation = tuple[list[dict[str, Any]], list[dict[str, Any]] | None]


class RowError(Exception):
    """A row that cannot be read; the text is the reason rows are counted under."""


def to_conversation(record: Any, answered: bool = True) -> Conversation:
    """(messages, tools) of one record; with `answered` off, the last answer may be missing.

    Raises:
        RowError: the record has no known columns, or one of them holds what it should not.
    """
    if not isinstance(record, Mapping):
        raise RowError(f'the row is {_kind(record)}, not an object')
    if None in record:
        raise RowError('the row has more values than there are columns: texts with commas need quotes')
    for column in MEDIA:
        if record.get(column):
            raise RowError(f"the row has '{column}', but models read text")
    if record.get('messages') is not None:
        messages = _turns(_decoded(record, 'messages'), 'messages')
    elif record.get('conversations') is not None:
        messages = _turns(_decoded(record, 'conversations'), 'conversations')
    elif 'instruction' in record and ('output' in record or not answered):
        parts = [_text(record, 'instruction'), _text(record, 'input') if record.get('input') else '']
        messages = _dialogue(
            record,
            '\n'.join(part for part in parts if part),
            _text(record, 'output') if 'output' in record else None,
        )
    elif record.get('A') is not None and record.get('B') is not None:
        messages = _choice(record)
    else:
        query = next((name for name in QUERY if record.get(name) is not None), None)
        response = next((name for name in RESPONSE if record.get(name) is not None), None)
        if query is None or (response is None and answered):
            raise RowError(_missing(record, query))
        messages = _dialogue(record, _text(record, query), response and _text(record, response))
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


def _missing(record: Mapping[str, Any], query: str | None) -> str:
    if query is not None:
        return f"the row has '{query}' but no 'response'{_hint(record, RESPONSE)}"
    if 'instruction' in record:
        return f"the row has 'instruction' but no 'output'{_hint(record, ('output',))}"
    columns = ', '.join(map(str, record)) or 'none'
    hint = _hint(record, LAYOUTS)
    return f"no 'messages', 'conversations', 'query' or 'instruction' among the columns ({columns}){hint}"


def _hint(record: Mapping[str, Any], wanted: tuple[str, ...]) -> str:
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


def _dialogue(record: Mapping[str, Any], query: str, response: str | None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    history = _decoded(record, 'history') if record.get('history') else []
    if not isinstance(history, list):
        raise RowError(f"'history' is {_kind(history)}, not a list of [query, response] pairs")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise RowError("'history' is no list of [query, response] pairs")
        messages += [{'role': 'user', 'content': pair[0]}, {'role': 'assistant', 'content': pair[1]}]
    messages.append({'role': 'user', 'content': query})
    return messages if response is None else [*messages, {'role': 'assistant', 'content': response}]


def _turns(turns: Any, column: str) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not turns:
        raise RowError(f"'{column}' is {_kind(turns)}, not a list of messages")
    messages = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise RowError(f"'{column}' holds {_kind(turn)}, not a message")
        role, content = turn.get('role', turn.get('from')), turn.get('content', turn.get('value'))
        if role not in ROLES:
            raise RowError(f"'{column}' has the role {role!r}; valid are system, user, assistant, tool")
        calls = turn.get('tool_calls')
        if not isinstance(content, str | list) and not (content is None and calls):
            raise RowError(f"the content of a message in '{column}' is {_kind(content)}, not text")
        message: dict[str, Any] = {'role': ROLES[role], 'content': content if content is not None else ''}
        if calls:
            message['tool_calls'] = calls
        if 'loss' in turn:
            message['loss'] = bool(turn['loss'])
        messages.append(message)
    return messages


def _tools(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if not record.get('tools'):
        return None
    tools = _decoded(record, 'tools')
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError(f"'tools' is {_kind(tools)}, not a list of tool descriptions")
    return tools


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
