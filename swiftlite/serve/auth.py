"""The API key: a plain ASGI layer in front of /v1."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from swiftlite.serve.errors import ApiError
from swiftlite.serve.reply import error_reply


class ApiKeyGuard:
    """401 for requests to /v1 without `Authorization: Bearer <one of keys>`; the rest (health, metrics) stays open."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope['type'] == 'http' and scope['method'] != 'OPTIONS' and scope['path'].startswith('/v1')
        if guarded:
            given = dict(scope['headers']).get(b'authorization', b'')
            scheme, _, key = given.partition(b' ')
            known = [hmac.compare_digest(key.strip(), one) for one in self._keys]
            if scheme.lower() != b'bearer' or not any(known):
                what = 'The API key is wrong' if given else 'An API key is required'
                reply = error_reply(ApiError(f'{what}: send "Authorization: Bearer <key>".', status=401))
                return await reply(scope, receive, send)
        await self._app(scope, receive, send)
