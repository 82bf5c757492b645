"""The ASGI response of a generation: JSON or server-sent events, cut off the moment the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from swiftlite.serve.answer import Answer
from swiftlite.serve.errors import FAULT, ApiError, as_api_error
from swiftlite.serve.service import Service

logger = logging.getLogger('swiftlite.serve')

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(',', ':'))  # json.dumps would make one for every chunk

JSON_HEADERS = [(b'content-type', b'application/json')]
CUT_SECONDS = 5.0  # for an answer that is cut short to reach its client
SSE_HEADERS = [(b'content-type', b'text/event-stream; charset=utf-8'), (b'cache-control', b'no-cache')]


class GenerationReply(Response):
    """Runs `answer` to its end. Headers go out with the first token, so that an early failure keeps its status.

    A request that waits in vain or takes too long (`Limits`) ends with 429 or 504; a stream that has begun, with an
    event that holds the error.
    """

    def __init__(self, service: Service, answer: Answer) -> None:
        super().__init__(media_type='text/event-stream' if answer.stream else 'application/json')
        self.service = service
        self.answer = answer
        self._cut: ApiError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job, limit = self.answer.job, self.service.limits.request_timeout
        try:
            self.service.check_room(job.size)
        except ApiError as error:
            await error_reply(error)(scope, receive, send)
            return
        work = asyncio.create_task(self._work(send))
        gone = asyncio.create_task(_disconnect(receive))

        def cut(error: ApiError) -> None:
            self._cut = error
            work.cancel()

        self.service.running[job] = cut
        try:
            done, _ = await asyncio.wait({work, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                cut(ApiError(f'The request took longer than the {limit:g} s that this server gives one.', status=504))
                await asyncio.wait({work, gone}, timeout=CUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self.service.running[job]
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _work(self, send: Send) -> None:
        started = False
        try:
            async with contextlib.aclosing(self.service.generate(self.answer.job)) as outputs:
                async for index, output in outputs:
                    chunks = self.answer.feed(index, output)
                    if chunks and not started:
                        started = True
                        await send(_start(200, SSE_HEADERS))
                    if chunks:
                        await send(_body(b''.join(map(event, chunks)), more=True))
            if self.answer.stream:
                await send(_body(b''.join(map(event, self.answer.closing())) + b'data: [DONE]\n\n'))
            else:
                await _send_json(send, 200, self.answer.body())
            return
        except asyncio.CancelledError:
            if self._cut is None:
                raise
            error = self._cut
        except Exception as fault:
            known = as_api_error(fault)
            if known is None:
                logger.exception('Request %s failed', self.answer.job.id)
            error = known or ApiError(FAULT, status=500)
        if started:
            await send(_body(event(error.body) + b'data: [DONE]\n\n'))
        else:
            await _send_json(send, error.status, error.body, error.headers)


class JsonReply(Response):
    """JSON that can hold any text a client sent (lone surrogates are replaced, not an encoding error)."""

    media_type = 'application/json'

    def render(self, content: Any) -> bytes:
        return dumps(content)


def error_reply(error: ApiError) -> JsonReply:
    return JsonReply(error.body, status_code=error.status, headers=error.headers)


def dumps(content: Any) -> bytes:
    return ENCODER.encode(content).encode('utf-8', 'replace')


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b'data: ' + dumps(content) + b'\n\n'


async def _disconnect(receive: Receive) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass


async def _send_json(send: Send, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
    payload = dumps(content)
    more = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    await send(_start(status, [*JSON_HEADERS, (b'content-length', str(len(payload)).encode()), *more]))
    await send(_body(payload))


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {'type': 'http.response.start', 'status': status, 'headers': headers}


def _body(payload: bytes, more: bool = False) -> Message:
    return {'type': 'http.response.body', 'body': payload, 'more_body': more}
