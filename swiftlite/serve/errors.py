"""OpenAI error bodies: ``{"error": {"message", "type", "param", "code"}}`` with the matching HTTP status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swiftlite.engine.errors import EngineDeadError, RequestError
from swiftlite.errors import SwiftliteError

ERROR_TYPES = {
    400: 'BadRequestError',
    401: 'AuthenticationError',
    404: 'NotFoundError',
    405: 'MethodNotAllowedError',
    413: 'BadRequestError',
    500: 'InternalServerError',
    503: 'ServiceUnavailableError',
}


class ApiError(Exception):
    """A refused or failed request: HTTP `status`, one sentence, and the request field it is about."""

    def __init__(self, message: str, *, status: int = 400, type: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type or ERROR_TYPES.get(status, 'InternalServerError')
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        return {'error': {'message': self.message, 'type': self.type, 'param': self.param, 'code': self.status}}


def as_api_error(error: BaseException) -> ApiError | None:
    """The API error that `error` means to a client; None for a fault of the server itself (500)."""
    match error:
        case ApiError():
            return error
        case EngineDeadError():
            return ApiError(f'The engine stopped while it worked on this request: {error}', status=503)
        case RequestError() | SwiftliteError():
            return ApiError(str(error))
    return None


def validation_error(errors: Sequence[dict[str, Any]], limit: int = 3) -> ApiError:
    """Pydantic's error list as one sentence; `param` is the dotted path of the first wrong field."""
    sentences = []
    for error in errors[:limit]:
        path = _field_path(error['loc'])
        if error['type'] == 'json_invalid':
            return ApiError(f'The body is not valid JSON: {error["ctx"]["error"]} at character {error["loc"][-1]}.')
        if not path:
            return ApiError('The body must be a JSON object sent with Content-Type: application/json.')
        if error['type'] == 'missing':
            sentences.append(f'{path} is required')
        else:
            sentences.append(f'{path}: {_plain(error["msg"])}')
    more = f' (and {len(errors) - limit} more)' if len(errors) > limit else ''
    return ApiError('; '.join(sentences) + more + '.', param=_field_path(errors[0]['loc']))


def _field_path(loc: Sequence[str | int]) -> str:
    path = ''
    for part in loc[1:] if loc and loc[0] in ('body', 'query', 'path') else loc:
        path += f'[{part}]' if isinstance(part, int) else f'.{part}' if path else part
    return path


def _plain(message: str) -> str:
    return message.removeprefix('Value error, ').rstrip('.')
