"""A client that goes away frees its blocks within a step, whatever it was waiting for."""

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncGenerator

import httpx
import pytest

from swiftlite.serve.service import merge
from tests.served import ServerThread

HELLO = [{'role': 'user', 'content': 'Hello there!'}]
FOREVER = {'messages': HELLO, 'ignore_eos': True}


def wait_until(server: ServerThread, condition, seconds: float = 60) -> dict[str, int]:
    deadline = time.monotonic() + seconds
    while not condition(stats := server.stats()):
        assert time.monotonic() < deadline, stats
    return stats


def idle(stats: dict[str, int]) -> bool:
    return stats['blocks_used'] == stats['num_running'] == stats['num_waiting'] == 0


@pytest.mark.parametrize('path', ['/v1/chat/completions', '/v1/completions'])
@pytest.mark.parametrize('stream', [True, False])
@pytest.mark.parametrize('n', [1, 3])
def test_leaving_frees_everything(server: ServerThread, path: str, stream: bool, n: int) -> None:
    async def leave() -> None:
        body = FOREVER | {'prompt': 'Hello', 'max_tokens': 480, 'stream': stream, 'n': n}
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ReadTimeout):
                async with client.stream('POST', server.url + path, json=body, timeout=60) as answer:
                    if stream:
                        async for _ in answer.aiter_lines():
                            raise httpx.ReadTimeout('enough')
                    await answer.aread()

    async def leave_whole() -> None:
        task = asyncio.create_task(leave())
        while server.stats()['num_running'] < n:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    before = server.stats()['generated_tokens']
    asyncio.run(leave() if stream else leave_whole())
    stats = wait_until(server, idle)
    assert stats['generated_tokens'] - before < 480 * n, 'it ran to its end'


def test_leaving_while_waiting(server: ServerThread) -> None:
    """A request that the engine has not begun is taken off its queue."""

    async def scenario() -> None:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=400)) as client:
            body = FOREVER | {'max_tokens': 200}
            tasks = [
                asyncio.create_task(client.post(f'{server.url}/v1/chat/completions', json=body)) for _ in range(300)
            ]
            while server.stats()['num_waiting'] == 0:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    wait_until(server, idle)


def test_samples_wait_for_a_slow_reader() -> None:
    """What a client has not read is not made and kept sample by sample."""
    made = 0

    async def endless() -> AsyncGenerator[int, None]:
        nonlocal made
        while True:
            made += 1
            yield made
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with contextlib.aclosing(merge([endless() for _ in range(3)])) as items:
            assert [await anext(items) for _ in range(5)]
            read = made
            for _ in range(100):
                await asyncio.sleep(0)
            assert made <= read + 3 + 3  # one a stream waits, and one more is in each hand
            assert [await anext(items) for _ in range(50)]

    asyncio.run(scenario())


def test_a_stream_that_nobody_reads_for_a_while_is_whole(server: ServerThread) -> None:
    """The engine does not wait for it: it is done long before the client reads on."""
    n = 24  # several times what the system's buffers hold
    body = FOREVER | {'prompt': 'Hello', 'max_tokens': 400, 'stream': True, 'n': n, 'logprobs': 20}
    body |= {'return_tokens_as_token_ids': True, 'return_token_ids': True}
    payload = json.dumps(body).encode()
    fields = {'Host': 'x', 'Content-Type': 'application/json', 'Content-Length': len(payload), 'Connection': 'close'}
    head = 'POST /v1/completions HTTP/1.1\r\n' + ''.join(f'{k}: {v}\r\n' for k, v in fields.items()) + '\r\n'
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(('127.0.0.1', int(server.url.rsplit(':', 1)[1])))
        before = server.stats()['generated_tokens']
        slow.sendall(head.encode() + payload)
        wait_until(server, lambda stats: stats['generated_tokens'] == before + 400 * n and idle(stats))
        assert len(server.service.running) == 1
        answer = b''.join(iter(lambda: slow.recv(1 << 16), b''))
    events = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith('data: {')]
    ids = [list[int]() for _ in range(n)]
    for choice in (event['choices'][0] for event in events):
        ids[choice['index']] += choice.get('token_ids', [])
        assert choice['logprobs'] is None or len(choice['logprobs']['tokens']) == len(choice['token_ids'])
    assert [len(each) for each in ids] == [400] * n and ids == [ids[0]] * n
    assert b'data: [DONE]' in answer


def test_random_disconnects_change_no_answer(server: ServerThread) -> None:
    """200 streams at once, 30 % cut at random places: the others answer as they do alone; nothing stays in use."""
    rng = random.Random(0)
    prompts = [f'prompt number {i} ' * rng.randint(1, 6) for i in range(200)]
    cuts = [rng.randint(0, 12) if rng.random() < 0.3 else None for _ in prompts]

    def body(prompt: str) -> dict:
        return {'prompt': prompt, 'max_tokens': 16, 'ignore_eos': True, 'stream': True}

    async def ask(client: httpx.AsyncClient, prompt: str, cut: int | None) -> str | None:
        lines = []
        async with client.stream('POST', f'{server.url}/v1/completions', json=body(prompt)) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)
                if cut is not None and len(lines) > cut:
                    return None
        assert lines[-2:] == ['data: [DONE]', '']
        choices = [json.loads(line[6:])['choices'][0] for line in lines if line.startswith('data: {')]
        return ''.join(choice['text'] for choice in choices) + str(choices[-1]['finish_reason'])

    async def ask_all(indices: list[int], cuts: list[int | None], at_once: int) -> list[str | None]:
        limits = httpx.Limits(max_connections=at_once)
        async with httpx.AsyncClient(timeout=httpx.Timeout(60, pool=None), limits=limits) as client:
            return await asyncio.gather(*(ask(client, prompts[i], cuts[i]) for i in indices))

    everything = list(range(len(prompts)))
    answers = asyncio.run(ask_all(everything, cuts, at_once=200))
    kept = [i for i in everything if answers[i] is not None]
    early = sum(cut is not None and cut < 4 for cut in cuts)  # an answer has four lines, however it is split
    assert early > 5 and cuts.count(None) <= len(kept) <= len(prompts) - early
    wait_until(server, idle)
    whole = [None] * len(prompts)
    assert asyncio.run(ask_all(kept, whole, at_once=4)) == [answers[i] for i in kept]
    alone = kept[:: len(kept) // 12]
    assert asyncio.run(ask_all(alone, whole, at_once=1)) == [answers[i] for i in alone]


def test_a_request_id_in_use_answers_both(server: ServerThread) -> None:
    """A client that leaves and asks again under its own id meets nothing of the first answer."""

    def body(prompt: str) -> dict:
        return {'prompt': prompt, 'max_tokens': 40, 'ignore_eos': True, 'request_id': 'mine', 'temperature': 0}

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            posts = [client.post(f'{server.url}/v1/completions', json=body(p)) for p in ('Hello', 'How are you?')]
            return await asyncio.gather(*posts)

    alone = [httpx.post(f'{server.url}/v1/completions', json=body(p)).json() for p in ('Hello', 'How are you?')]
    together = [answer.json() for answer in asyncio.run(ask())]
    assert [a['choices'] for a in together] == [a['choices'] for a in alone]
    assert {a['id'] for a in together} == {'cmpl-mine'}
