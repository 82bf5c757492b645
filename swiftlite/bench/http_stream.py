"""POST over HTTP/1.1 with the answer's events timed as they arrive: only the standard library, little work a byte.

A load generator that is busy itself measures its own delays. This one reads the response on asyncio's transport,
without a stream or a task a token, and keeps connections open for the next request.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

OnEvent = Callable[[bytes, float], None]  # the data of an event, time.perf_counter() when it came


class ResponseError(Exception):
    """No good answer came: one sentence. `status` is HTTP's, where there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EventStream(asyncio.Protocol):
    """One connection: a response at a time, its head, its body in chunks or not, its server-sent events."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.reusable = False
        self._buffer = bytearray()
        self._waiting: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def ask(self, message: bytes, on_event: OnEvent) -> asyncio.Future[float]:
        """Send a request. The future has the moment when its response was whole, or a ResponseError."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._on_event = on_event
        self._buffer.clear()
        self._status = 0
        self.started = self.reusable = False
        self._left: int | None = None  # bytes of the body that are to come; None: until the connection closes
        self._chunked = self._events = self._ended = False
        self._line = b''
        self._body = bytearray()
        self.transport.write(message)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._waiting is None or self._waiting.done():
            return
        self.started = True
        self._buffer += data
        try:
            if not self._status and not self._head():
                return
            if self._chunked:
                self._chunks(now)
            else:
                self._plain(now)
        except (ValueError, IndexError, AttributeError, TypeError):
            self._fail("the server answered with something else than OpenAI's API")

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._waiting is None or self._waiting.done():
            return
        if self._status and not self._chunked and self._left is None:
            self._finish(time.perf_counter())
            return
        self._fail('the connection broke off' + (f': {error}' if error else ''))

    def _head(self) -> bool:
        """Read the status and the headers, once they are here."""
        end = self._buffer.find(b'\r\n\r\n')
        if end < 0:
            return False
        first, *lines = bytes(self._buffer[:end]).decode('latin-1').split('\r\n')
        del self._buffer[: end + 4]
        self._status = int(first.split(' ', 2)[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(':') for line in lines)}
        self._chunked = 'chunked' in headers.get('transfer-encoding', '').lower()
        self._events = self._status == 200 and headers.get('content-type', '').startswith('text/event-stream')
        self._left = int(headers['content-length']) if 'content-length' in headers else None
        self._keep = headers.get('connection', '').lower() != 'close' and first.startswith('HTTP/1.1')
        return True

    def _chunks(self, now: float) -> None:
        buffer, place = self._buffer, 0
        while (end := buffer.find(b'\r\n', place)) >= 0:
            size = int(buffer[place:end].split(b';')[0], 16)
            stop = end + 2 + size + 2
            if len(buffer) < stop:
                break
            if size == 0:
                self._finish(now)
                return
            self._take(bytes(buffer[end + 2 : stop - 2]), now)
            place = stop
        if place:
            del buffer[:place]

    def _plain(self, now: float) -> None:
        piece = bytes(self._buffer)
        self._buffer.clear()
        self._take(piece, now)
        if self._left is not None:
            self._left -= len(piece)
            if self._left <= 0:
                self._finish(now)

    def _take(self, piece: bytes, now: float) -> None:
        if not self._events:
            self._body += piece
            return
        *lines, self._line = (self._line + piece).split(b'\n')
        for line in lines:
            if line.startswith(b'data:'):
                data = line[5:].strip()
                if data == b'[DONE]':
                    self._ended = True
                else:
                    self._on_event(data, now)

    def _finish(self, now: float) -> None:
        self.reusable = self._keep and not self.transport.is_closing()
        if self._status != 200:
            self._fail(_error(bytes(self._body), self._status))
        elif not self._events:
            self._fail('the answer is no stream of events: the server does not know "stream": true')
        elif not self._ended:
            self._fail('the stream ended without [DONE]')
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(now)

    def _fail(self, message: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ResponseError(message, self._status or None))


class EventClient:
    """Connections to one address. `url` is http or https, without what follows the API's root."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or '', parts.scheme == 'https'
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip('/')
        self._context = ssl.create_default_context() if self._tls else None
        given = {'Host': parts.netloc.rpartition('@')[2], 'Content-Type': 'application/json', **(headers or {})}
        self._headers = ''.join(f'{name}: {value}\r\n' for name, value in given.items())
        self._idle: list[EventStream] = []

    def message(self, path: str, body: dict[str, Any]) -> bytes:
        """The request as it is sent; made beforehand, so that making it delays nothing."""
        text = json.dumps(body).encode()
        head = f'POST {self._path}/{path} HTTP/1.1\r\n{self._headers}Content-Length: {len(text)}\r\n\r\n'
        return head.encode() + text

    async def post(self, message: bytes, on_event: OnEvent, timeout: float) -> float:
        """Send `message` and hand over each event; the moment of the end. ResponseError where it is no whole stream."""
        try:
            async with asyncio.timeout(timeout):
                return await self._post(message, on_event)
        except TimeoutError:
            raise ResponseError(f'no whole answer within {timeout:g} s') from None
        except OSError as error:
            raise ResponseError(f'no connection: {error.strerror or error}') from None

    async def close(self) -> None:
        """Close the connections that wait; those of running requests end with them."""
        for stream in self._idle:
            stream.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # what is closed is closed in the next round of the event loop

    async def _post(self, message: bytes, on_event: OnEvent) -> float:
        while True:
            stream, old = await self._connection()
            try:
                return await stream.ask(message, on_event)
            except ResponseError as error:
                if old and not stream.started and error.status is None:
                    continue  # the server had closed a connection that waited
                raise
            finally:
                if stream.reusable:
                    self._idle.append(stream)
                else:
                    stream.transport.abort()

    async def _connection(self) -> tuple[EventStream, bool]:
        """(a connection, whether it was used before)."""
        while self._idle:
            stream = self._idle.pop()
            if not stream.transport.is_closing():
                return stream, True
        _, stream = await asyncio.get_running_loop().create_connection(
            EventStream, self._host, self._port, ssl=self._context
        )
        return stream, False


def _error(body: bytes, status: int) -> str:
    """What a server says in the body of an error: OpenAI's message, or the beginning of the text."""
    try:
        value = json.loads(body)
        error = value.get('error', value)
        said = error.get('message') or error.get('detail')
    except (ValueError, AttributeError):
        said = None
    text = ' '.join(str(said or body.decode(errors='replace')).split())
    return f'{status}: {text[:200]}' if text else f'status {status}'
