"""Request bodies: read up to a limit, parsed as JSON, and a precise sentence for what is neither."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

MAX_DEPTH = 100  # of lists and objects; JSON schemas and tool definitions stay far below
SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')


class BodyError(HTTPException):
    """The body is not one that can be read (400); `param` names the field, where it is one's fault."""

    def __init__(self, sentence: str, param: str | None = None) -> None:
        super().__init__(400, sentence)
        self.param = param


class BodyRequest(Request):
    """A request whose body is limited to `app.state.max_body_bytes` and read as JSON.

    Raises HTTPException: 413 for a body that is too long, 400 for what is not UTF-8, not JSON, nested too deeply or
    no Unicode.
    """

    async def body(self) -> bytes:
        if not hasattr(self, '_body'):
            limit = self.app.state.max_body_bytes
            announced = self.headers.get('content-length', '')
            if announced.isdecimal() and int(announced) > limit:
                raise _too_long(limit)
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_long(limit)
                chunks.append(chunk)
            self._body = b''.join(chunks)
        return self._body

    async def json(self) -> Any:
        return parse_json(await self.body())


class BodyRoute(APIRoute):
    """A route that reads its body through `BodyRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(BodyRequest(request.scope, request.receive))

        return handle


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; HTTPException (400) with one sentence where it is none."""
    try:
        text = body.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        byte = body[error.start]
        raise BodyError(f'The body is not UTF-8: byte {error.start} is 0x{byte:02x} ({error.reason})') from None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BodyError(
            f'The body is not valid JSON: {error.msg} at character {error.pos} (line {error.lineno})'
        ) from None
    except RecursionError:
        raise BodyError(f'The body is nested too deeply: at most {MAX_DEPTH} levels are read') from None
    except ValueError:
        raise BodyError('The body is not valid JSON: it holds a number with too many digits') from None
    if text.count('[') + text.count('{') > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise BodyError(f'The body is nested too deeply: at most {MAX_DEPTH} levels are read')
    if SURROGATE.search(text):
        _check_unicode(value, '')
    return value


def _check_unicode(value: Any, path: str) -> None:
    """Refuse halves of surrogate pairs, which no tokenizer, grammar or log can hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            where = path or 'The body'
            raise BodyError(f'{where} has half of a surrogate pair at character {error.start}', path or None) from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_unicode(key, path)
            _check_unicode(inner, f'{path}.{key}' if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_unicode(inner, f'{path}[{index}]')


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than `levels`."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


def _too_long(limit: int) -> HTTPException:
    return HTTPException(413, f'The body is longer than the {limit} bytes that this server reads (--max_body_size)')
