"""The API key: a plain ASGI layer in front of /v1."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from swiftlite.serve.errors import ApiError
from swiftlite.serve.reply import error_reply


class ApiKeyGuard:
    """401 for requests to /v1 without `Authorization: Bearer <key>`; the rest (health, metrics) stays open."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope['type'] == 'http' and scope['method'] != 'OPTIONS' and scope['path'].startswith('/v1')
        if guarded:
            given = dict(scope['headers']).get(b'authorization', b'')
            scheme, _, key = given.partition(b' ')
            if scheme.lower() != b'bearer' or not hmac.compare_digest(key.strip(), self._key):
                what = 'The API key is wrong' if given else 'An API key is required'
                reply = error_reply(ApiError(f'{what}: send "Authorization: Bearer <key>".', status=401))
                return await reply(scope, receive, send)
        await self._app(scope, receive, send)
