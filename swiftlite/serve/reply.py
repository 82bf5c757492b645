"""The ASGI response of a generation: JSON or server-sent events, cut off the moment the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from swiftlite.engine.outputs import RequestOutput
from swiftlite.serve.errors import ApiError, as_api_error
from swiftlite.serve.service import Job, Service

logger = logging.getLogger('swiftlite.serve')

JSON_HEADERS = [(b'content-type', b'application/json')]
SSE_HEADERS = [(b'content-type', b'text/event-stream; charset=utf-8'), (b'cache-control', b'no-cache')]


class Answer(Protocol):
    """One response under construction: `feed` takes what the engine yields and returns the chunks it makes."""

    job: Job
    stream: bool

    def opening(self) -> list[dict[str, Any]]: ...
    def feed(self, index: int, output: RequestOutput) -> list[dict[str, Any]]: ...
    def closing(self) -> list[dict[str, Any]]: ...
    def body(self) -> dict[str, Any]: ...


class GenerationReply(Response):
    """Runs `answer` to its end. Headers go out with the first token, so that an early failure keeps its status."""

    def __init__(self, service: Service, answer: Answer) -> None:
        super().__init__(media_type='text/event-stream' if answer.stream else 'application/json')
        self.service = service
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._work(send))
        gone = asyncio.create_task(_disconnect(receive))
        self.service.tasks.add(work)
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self.service.tasks.discard(work)
        if not work.cancelled():
            work.result()

    async def _work(self, send: Send) -> None:
        started = False
        try:
            async with contextlib.aclosing(self.service.generate(self.answer.job)) as outputs:
                async for index, output in outputs:
                    chunks = self.answer.feed(index, output)
                    if self.answer.stream:
                        if not started:
                            started = True
                            await send(_start(200, SSE_HEADERS))
                            chunks = [*self.answer.opening(), *chunks]
                        if chunks:
                            await send(_body(b''.join(map(event, chunks)), more=True))
            if self.answer.stream:
                await send(_body(b''.join(map(event, self.answer.closing())) + b'data: [DONE]\n\n'))
            else:
                await _send_json(send, 200, self.answer.body())
            return
        except asyncio.CancelledError:
            if self.service.closing is None:
                raise
            error = ApiError(self.service.closing, status=503)
        except Exception as fault:
            known = as_api_error(fault)
            if known is None:
                logger.exception('Request %s failed', self.answer.job.id)
            error = known or ApiError('The server failed on this request; its log says why.', status=500)
        if started:
            await send(_body(event(error.body) + b'data: [DONE]\n\n'))
        else:
            await _send_json(send, error.status, error.body)


class JsonReply(Response):
    """JSON that can hold any text a client sent (lone surrogates are replaced, not an encoding error)."""

    media_type = 'application/json'

    def render(self, content: Any) -> bytes:
        return dumps(content)


def error_reply(error: ApiError) -> JsonReply:
    return JsonReply(error.body, status_code=error.status)


def dumps(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(',', ':')).encode('utf-8', 'replace')


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b'data: ' + dumps(content) + b'\n\n'


async def _disconnect(receive: Receive) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass


async def _send_json(send: Send, status: int, content: Any) -> None:
    payload = dumps(content)
    await send(_start(status, [*JSON_HEADERS, (b'content-length', str(len(payload)).encode())]))
    await send(_body(payload))


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {'type': 'http.response.start', 'status': status, 'headers': headers}


def _body(payload: bytes, more: bool = False) -> Message:
    return {'type': 'http.response.body', 'body': payload, 'more_body': more}
