"""OpenAI error bodies: ``{"error": {"message", "type", "param", "code"}}`` with the matching HTTP status."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swiftlite.engine.errors import EngineDeadError, RequestError
from swiftlite.errors import SwiftliteError

ERROR_TYPES = {
    400: 'BadRequestError',
    401: 'AuthenticationError',
    404: 'NotFoundError',
    405: 'MethodNotAllowedError',
    413: 'BadRequestError',
    429: 'RateLimitError',
    500: 'InternalServerError',
    503: 'ServiceUnavailableError',
    504: 'TimeoutError',
}
LONG = re.compile(r'\S{201,}')
MOST = 4000  # characters of a message
# pydantic's types of errors, where its own words are those of a programmer
WANTED = {
    **dict.fromkeys(('bool_type', 'bool_parsing'), 'be true or false'),
    **dict.fromkeys(('int_type', 'int_parsing', 'int_parsing_size', 'int_from_float'), 'be a whole number'),
    **dict.fromkeys(('float_type', 'float_parsing'), 'be a number'),
    **dict.fromkeys(('dict_type', 'model_type', 'model_attributes_type'), 'be a JSON object'),
    'string_type': 'be text',
    'list_type': 'be a list',
    'too_short': 'not be empty',
}
FAULT = 'The server failed on this request; its log says why.'


class ApiError(Exception):
    """A refused or failed request: HTTP `status`, one sentence, the request field it is about, extra headers."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _sentence(message)
        super().__init__(self.message)
        self.status = status
        self.type = type or ERROR_TYPES.get(status, 'InternalServerError')
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {'error': {'message': self.message, 'type': self.type, 'param': self.param, 'code': self.status}}


def as_api_error(error: BaseException) -> ApiError | None:
    """The API error that `error` means to a client; None for a fault of the server itself (500)."""
    match error:
        case ApiError():
            return error
        case EngineDeadError():
            said = f'The engine stopped before this request was answered: {error}'
            return ApiError(said, status=503, headers={'Retry-After': '5'})
        case RequestError() | SwiftliteError():
            return ApiError(str(error))
    return None


def validation_error(errors: Sequence[dict[str, Any]], limit: int = 3) -> ApiError:
    """Pydantic's error list as one sentence; `param` is the dotted path of the first wrong field."""
    wrong: dict[str, list[dict[str, Any]]] = {}
    for error in errors:
        path = _field_path(error['loc'])
        if not path:
            return ApiError('The body must be a JSON object sent with Content-Type: application/json.')
        wrong.setdefault(path, []).append(error)
    within = {path.rpartition('[')[0] for path in wrong}
    wrong = {path: found for path, found in wrong.items() if path not in within}  # the list that an entry is wrong in
    sentences = [_field_sentence(path, found) for path, found in list(wrong.items())[:limit]]
    more = f' (and {len(wrong) - limit} more)' if len(wrong) > limit else ''
    return ApiError('; '.join(sentences) + more + '.', param=next(iter(wrong)))


def _field_sentence(path: str, errors: Sequence[dict[str, Any]]) -> str:
    """What is wrong with one field; several errors are the kinds of value that it may have."""
    if errors[0]['type'] == 'missing':
        return f'{path} is required'
    for error in errors:
        if error['type'] == 'value_error':
            return f'{path} must {error["msg"].removeprefix("Value error, ")}'
    messages = dict.fromkeys(WANTED.get(error['type']) or _plain(error['msg']) for error in errors)
    return f'{path} must {" or ".join(messages)}{_given(errors[0])}'


def _given(error: dict[str, Any]) -> str:
    value = error.get('input')
    if isinstance(value, dict | list):
        return ''
    shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return f', not {shown:.60}'


def _field_path(loc: Sequence[str | int]) -> str:
    path = ''
    for part in loc[1:] if loc and loc[0] in ('body', 'query', 'path') else loc:
        if isinstance(part, int):
            path += f'[{part}]'
        elif part not in KINDS:
            path += f'.{part}' if path else part
    return path


# pydantic's names for the kinds that one field may have
KINDS = ('str', 'int', 'float', 'bool', 'list[str]', 'list[int]', 'list[list[int]]', 'dict[str,any]')


def _plain(message: str) -> str:
    message = message.removeprefix('Input should ').rstrip('.')
    return message if message.startswith(('be ', 'have ', 'match ')) else f'follow its type ({message})'


def _sentence(text: str) -> str:
    """One line with one stop; what is long is cut: a message may quote what the client sent, or come from a library."""
    text = LONG.sub(lambda word: f'{word[0][:80]}…{word[0][-20:]}', ' '.join(text.split()))
    if len(text) > MOST:
        text = f'{text[:MOST]}…'
    if text.endswith('?.'):
        return text[:-1]
    return text if text.endswith(('.', '?')) else f'{text}.'
