"""The engine in its own process, as a server uses it."""

import asyncio
import os
import signal
from functools import partial

import pytest

from swiftlite import AsyncEngine, EngineConfig, LoRARequest
from swiftlite.engine import EngineDeadError, RequestError
from swiftlite.engine.process import channel
from swiftlite.errors import SwiftliteError
from tests.engine.runs import greedy, make_llm, random_prompts, run

PROMPTS = random_prompts(8, seed=4)


def config(base, **options):
    return EngineConfig(
        model=str(base),
        skip_tokenizer_init=True,
        dtype='float32',
        enable_lora=True,
        num_gpu_blocks_override=64,
        **options,
    )


async def collect(engine, prompt, params, name, lora=None, begun=None):
    """All tokens and the finish reason of one answer; the event is set with its first token."""
    tokens, reason = [], None
    async for out in engine.generate(prompt, params, name, lora):
        tokens += out.outputs[0].token_ids
        reason = out.outputs[0].finish_reason
        if begun is not None:
            begun.set()
    return tokens, reason


async def begin(engine, prompt, params, name):
    """A task that collects an answer which has begun and goes on."""
    begun = asyncio.Event()
    task = asyncio.create_task(collect(engine, prompt, params, name, begun=begun))
    await asyncio.wait_for(begun.wait(), 60)
    return task


async def until(check, seconds=60.0):
    """Wait for an awaitable check to give a true value."""
    for _ in range(int(seconds * 50)):
        if value := await check():
            return value
        await asyncio.sleep(0.02)
    raise AssertionError('never happened')


async def idle(engine):
    stats = await engine.stats()
    return (stats['blocks_used'], stats['num_running'], stats['num_waiting']) == (0, 0, 0)


async def test_answers_adapters_and_refusals(base, adapters):
    lora = LoRARequest('a', 1, str(adapters[0]))
    expected = run(make_llm(base), PROMPTS)
    adapted = run(make_llm(base, enable_lora=True), PROMPTS, lora=lora)
    engine = await AsyncEngine.start(config(base))
    try:
        assert engine.model_config.vocab_size == 128 and engine.model_config.dtype == 'float32'
        answers = await asyncio.gather(*(collect(engine, p, greedy(), f'b{i}') for i, p in enumerate(PROMPTS)))
        assert answers == [(t, 'length') for t in expected]
        await engine.add_lora(lora)
        mixed = await asyncio.gather(
            *(collect(engine, p, greedy(), f'm{i}', lora if i % 2 else None) for i, p in enumerate(PROMPTS))
        )
        assert [t for t, _ in mixed] == [(adapted if i % 2 else expected)[i] for i in range(8)]
        for prompt, message in (
            ([], 'empty'),
            ([5] * 300, '300 tokens'),
            ([500], 'token id 500'),
            ([-1], 'token id -1'),
        ):
            with pytest.raises(RequestError, match=message):
                await collect(engine, prompt, greedy(), 'bad')
        with pytest.raises(RequestError, match='no-such-folder'):
            await engine.add_lora(LoRARequest('x', 9, '/no-such-folder'))
        with pytest.raises(RequestError, match='remove_lora failed'):
            await engine._call('remove_lora', [])  # no id
        assert await engine.remove_lora(1) and not await engine.remove_lora(1)
        assert await collect(engine, PROMPTS[0], greedy(), 'after') == (expected[0], 'length')
        stats = await engine.stats()
        assert (stats['blocks_used'], stats['num_running'], stats['adapters']) == (0, 0, 0)
    finally:
        await engine.shutdown()
    assert engine._client.process.returncode == 0


async def test_leaving_an_answer_frees_its_blocks(base):
    engine = await AsyncEngine.start(config(base))
    try:

        async def leave(i):
            async for _ in engine.generate(PROMPTS[i], greedy(150), f'{i}'):
                return

        await asyncio.gather(*(leave(i) for i in range(8)))
        cancelled = await begin(engine, PROMPTS[0], greedy(150), 'c')
        cancelled.cancel()
        asked = await begin(engine, PROMPTS[1], greedy(150), 'd')
        await engine.abort('d')
        assert (await asked)[1] == 'abort'

        await until(partial(idle, engine))
    finally:
        await engine.shutdown()


async def test_a_killed_engine_fails_its_requests_and_comes_back(base, adapters, capsys):
    engine = await AsyncEngine.start(config(base))
    try:
        lora = LoRARequest('a', 1, str(adapters[0]))
        await engine.add_lora(lora)
        before = await collect(engine, PROMPTS[0], greedy(), 'one', lora)
        running = await begin(engine, PROMPTS[0], greedy(200), 'two')
        os.kill(engine._client.process.pid, signal.SIGKILL)
        with pytest.raises(EngineDeadError, match='exit status -9'):
            await running
        assert not engine.alive
        with pytest.raises(EngineDeadError):
            await collect(engine, PROMPTS[0], greedy(), 'three')

        async def back():
            return engine.alive

        await until(back, 60)
        assert await collect(engine, PROMPTS[0], greedy(), 'four', lora) == before
    finally:
        await engine.shutdown()


async def test_what_left_while_the_engine_stood_still_is_not_kept(base, monkeypatch):
    """An engine in a long step, and clients that come and go meanwhile: only some of what they sent waits for it."""
    monkeypatch.setattr(channel, 'ROOM', 1_000_000)
    engine = await AsyncEngine.start(config(base))
    try:
        expected = await collect(engine, PROMPTS[0], greedy(), 'before')
        os.kill(engine._client.process.pid, signal.SIGSTOP)
        for number in range(50):
            long = asyncio.create_task(collect(engine, [5] * 100_000, greedy(), f'long{number}'))
            await asyncio.sleep(0)
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)
        waits = asyncio.create_task(collect(engine, PROMPTS[0], greedy(), 'waits'))
        ended = asyncio.create_task(collect(engine, PROMPTS[0], greedy(), 'ended'))
        await asyncio.sleep(0)
        await engine.abort('ended')
        assert engine._client._channel._kept < 2_000_000
        os.kill(engine._client.process.pid, signal.SIGCONT)
        assert await waits == expected and await ended == ([], 'abort')

        await until(partial(idle, engine))
    finally:
        await engine.shutdown()


async def test_an_adapter_removed_while_the_engine_comes_back_is_not_there():
    calls = []

    class Client:
        async def call(self, name, request):
            calls.append((name, request))
            if name == 'add_lora':
                engine._loras.pop(7, None)

    engine = AsyncEngine(config('/m'))
    engine._client, gone = Client(), LoRARequest('gone', 7, '/a')
    engine._loras[7] = gone
    await engine._load_again(gone)
    assert calls == [('add_lora', gone), ('remove_lora', 7)]


async def test_an_adapter_removed_when_the_answer_to_its_load_is_on_its_way_is_not_loaded_again():
    engine, replies = AsyncEngine(config('/m')), []

    class Client:
        def call(self, name, request):
            replies.append(asyncio.get_running_loop().create_future())
            return replies[-1]

    engine._client = Client()
    adding = asyncio.create_task(engine.add_lora(LoRARequest('a', 7, '/a')))
    await asyncio.sleep(0)
    removing = asyncio.create_task(engine.remove_lora(7))
    await asyncio.sleep(0)
    again = asyncio.create_task(engine.add_lora(LoRARequest('b', 8, '/b')))
    await asyncio.sleep(0)
    for reply in replies:
        reply.set_result(True)
    await asyncio.gather(adding, removing, again)
    assert list(engine._loras) == [8]


async def test_an_engine_killed_again_while_it_comes_back_comes_back(base):
    engine = await AsyncEngine.start(config(base))
    try:
        before = await collect(engine, PROMPTS[0], greedy(), 'one')
        first = engine._client.process
        os.kill(first.pid, signal.SIGKILL)

        async def starting():
            return engine._client.process is not first

        await until(starting)
        os.kill(engine._client.process.pid, signal.SIGKILL)

        async def back():
            return engine.alive and engine._client.process is not first

        await until(back, 60)
        assert await collect(engine, PROMPTS[0], greedy(), 'two') == before
    finally:
        await engine.shutdown()


async def test_shutdown_lets_running_requests_finish(base):
    engine = await AsyncEngine.start(config(base))
    running = asyncio.create_task(collect(engine, PROMPTS[0], greedy(100), 'one'))
    await asyncio.sleep(0.02)
    await engine.shutdown(drain=True)
    tokens, reason = await running
    assert (len(tokens), reason) == (100, 'length')
    for late in (collect(engine, PROMPTS[0], greedy(), 'two'), engine.stats()):
        with pytest.raises(EngineDeadError, match='shutting down'):
            await asyncio.wait_for(late, 10)


async def test_a_model_that_cannot_be_loaded_is_one_sentence(base, tmp_path):
    with pytest.raises(SwiftliteError, match='max_model_len 100000'):
        await AsyncEngine.start(config(base, max_model_len=100000))
