"""A server that only streams: the same event to every stream at a steady pace, to find what a client can read.

A script: `python sse_server.py EVENTS PAUSE` prints its port. PAUSE: seconds between the events of a stream.
"""

import asyncio
import sys

EVENT = (
    b'data: {"id":"cmpl-0","object":"text_completion","created":1,"model":"none","choices":[{"index":0,'
    b'"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
)
HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'


def chunk(data: bytes) -> bytes:
    return b'%x\r\n%b\r\n' % (len(data), data)


class Streams(asyncio.Protocol):
    """A connection; a request on it joins the streams that are written to."""

    writing: dict[asyncio.Transport, int]
    events: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.received = b''

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, mark, body = self.received.partition(b'\r\n\r\n')
        if not mark:
            return
        length = next((int(line[15:]) for line in head.split(b'\r\n') if line[:15].lower() == b'content-length:'), 0)
        if len(body) >= length:
            self.received = b''
            self.transport.write(HEAD)
            self.writing[self.transport] = self.events

    def connection_lost(self, error: Exception | None) -> None:
        self.writing.pop(self.transport, None)


async def main(events: int, pause: float) -> None:
    Streams.writing, Streams.events = {}, events
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Streams, '127.0.0.1', 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    event, end = chunk(EVENT), chunk(b'data: [DONE]\n\n') + b'0\r\n\r\n'
    due = loop.time()
    while True:
        for transport, left in list(Streams.writing.items()):
            if left:
                transport.write(event)
                Streams.writing[transport] = left - 1
            else:
                transport.write(end)
                del Streams.writing[transport]
        due = max(due + pause, loop.time())
        await asyncio.sleep(due - loop.time())


if __name__ == '__main__':
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
