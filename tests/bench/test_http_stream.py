"""The client of `bench serve`: HTTP as it comes, in any pieces, and what is wrong with it."""

import asyncio
import itertools

import pytest

from swiftlite.bench.client_ceiling import measure_client
from swiftlite.bench.http_stream import EventClient, ResponseError
from swiftlite.bench.load import arrivals, run_load

HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
TEXT = 'data: {"choices": [{"text": "wörd"}]}\n\n'.encode()
LAST = b'data: {"choices": [], "usage": {"completion_tokens": 9, "prompt_tokens": 4}}\n\ndata: [DONE]\n\n'


def chunks(*parts):
    return b''.join(b'%x\r\n%b\r\n' % (len(part), part) for part in parts) + b'0\r\n\r\n'


class Answers:
    """A server that writes the given pieces to each request, and closes afterwards if told so."""

    def __init__(self, *pieces, close=False, pause=0.0):
        self.pieces, self.close, self.pause, self.connections = pieces, close, pause, 0

        self.tasks = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.take, '127.0.0.1', 0)
        return f'http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1'

    async def __aexit__(self, *exc):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the connections' own ends

    def take(self, reader, writer):
        self.connections += 1
        self.tasks.append(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader, writer):
        try:
            while await reader.readuntil(b'\r\n\r\n'):
                await reader.readexactly(2)  # the body: {}
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self.pause)
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def rows(answers, count=1, timeout=5.0, **options):
    async with answers as url:
        client = EventClient(url)
        load = await run_load(
            client, [client.message('completions', {})] * count, [0.0] * count, timeout=timeout, **options
        )
        await client.close()
        return load.rows


async def test_an_answer_byte_by_byte_is_the_same_as_in_one_piece():
    whole = HEAD + chunks(TEXT, TEXT + TEXT[:9], TEXT[9:], LAST)
    for pieces in ([whole], [whole[i : i + 1] for i in range(len(whole))]):
        (row,) = await rows(Answers(*pieces))
        assert (row.error, row.texts, row.output_tokens, row.prompt_tokens, len(row.gaps)) == (None, 3, 9, 4, 2)
        assert 0 < row.ttft <= row.e2e


async def test_connections_are_used_again():
    answers = Answers(HEAD + chunks(TEXT, LAST))
    found = await rows(answers, count=6, max_concurrency=2)
    assert [row.error for row in found] == [None] * 6 and answers.connections == 2


async def test_a_connection_that_was_closed_while_it_waited_is_replaced():
    answers = Answers(HEAD + chunks(TEXT, LAST), close=True)
    found = await rows(answers, count=3, max_concurrency=1)
    assert [row.error for row in found] == [None] * 3 and answers.connections == 3


async def test_a_body_without_chunks_ends_with_the_connection():
    head = b'HTTP/1.0 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n'
    (row,) = await rows(Answers(head + TEXT + LAST, close=True))
    assert (row.error, row.texts) == (None, 1)


@pytest.mark.parametrize(
    ('pieces', 'said'),
    [
        ([HEAD + chunks(TEXT)], 'the stream ended without [DONE]'),
        ([HEAD + chunks(LAST)], 'the answer has no text'),
        ([HEAD + chunks(TEXT, b'data: {"error": {"message": "it fell over"}}\n\n', LAST)], 'it fell over'),
        ([HEAD, b'zz\r\n'], "something else than OpenAI's API"),
        ([HEAD + chunks(b'data: [1]\n\n')], "something else than OpenAI's API"),
        ([HEAD + chunks(TEXT)[:-5]], 'the connection broke off'),
        ([b'HTTP/1.1 429 Busy\r\nContent-Length: 35\r\n\r\n{"error": {"message": "try later"}}'], '429: try later'),
        ([b'HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n'], 'status 500'),
        ([b'HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\n<p>no</p>'], '502: <p>no</p>'),
        ([b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'], 'the answer is no stream'),
    ],
)
async def test_what_is_wrong_is_one_sentence(pieces, said):
    (row,) = await rows(Answers(*pieces, close=True))
    assert said in row.error and row.e2e is None


async def test_silence_is_an_error():
    (row,) = await rows(Answers(HEAD, pause=3), timeout=0.2)
    assert row.error == 'no whole answer within 0.2 s'


async def test_no_server_is_an_error():
    client = EventClient('http://127.0.0.1:9')
    with pytest.raises(ResponseError, match='no connection'):
        await client.post(client.message('completions', {}), lambda data, now: None, 5)


async def test_a_stop_keeps_what_is_done():
    stop = asyncio.Event()
    load = None
    async with Answers(HEAD + chunks(TEXT, LAST)) as url:
        client = EventClient(url)
        messages = [client.message('completions', {})] * 3
        load = await run_load(
            client, messages, [0.0, 0.0, 60.0], timeout=5, stop=stop, on_row=lambda row: row.index == 1 and stop.set()
        )
        await client.close()
    assert load.stopped and 1 <= len(load.rows) <= 2 and load.seconds < 30


def test_arrivals_have_their_rate_and_are_seeded():
    found = arrivals(4000, 10, 1, 0)
    assert found[0] == 0 and found == sorted(found) == arrivals(4000, 10, 1, 0) != arrivals(4000, 10, 1, 1)
    assert found[-1] == pytest.approx(400, rel=0.1)
    assert arrivals(3, float('inf'), 1, 0) == [0.0] * 3

    def spread(burstiness):
        moments = arrivals(4000, 10, burstiness, 0)
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        mean = sum(gaps) / len(gaps)
        return (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean

    assert spread(100) < 0.2 < 0.8 < spread(1) < 1.2 < spread(0.25)


async def test_the_clients_own_ceiling_is_measured():
    found = await measure_client(streams=20, events=10, pause=0.001)
    assert found['streams'] == 20 and found['events_per_second'] > 0 and found['most_events_per_second'] > 1000
