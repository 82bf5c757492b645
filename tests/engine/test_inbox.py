"""Outputs of one request that wait for their reader."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite import AsyncEngine, EngineConfig
from swiftlite.engine import EngineDeadError, RequestError
from swiftlite.engine.outputs import SequenceOutput, TokenLogprobs, pack
from swiftlite.engine.process.inbox import Inbox
from tests.engine.runs import greedy


def outputs(number):
    """`number` outputs of one token each, some with logprobs, the last with its end."""
    found = [SequenceOutput('r', [i], num_cached_tokens=16 if i == 0 else 0) for i in range(number)]
    found[-1].finish_reason, found[-1].num_cached_tokens = 'length', 16
    return found


@given(st.integers(1, 12), st.lists(st.booleans(), min_size=12, max_size=12), st.booleans())
def test_read_late_or_at_once_it_is_the_same(number, reads, with_logprobs):
    async def scenario():
        inbox, got = Inbox('r'), []
        for out, read in zip(outputs(number), reads, strict=False):
            if with_logprobs:
                out.logprobs = [TokenLogprobs(-float(out.token_ids[0]), 1, [], [])]
            ids, tokens, rest = pack([out])
            assert len(ids) == len(tokens) == 1 - len(rest)
            for token in tokens:
                inbox.put_token(token)
            for other in rest:
                inbox.put(other)
            if read:
                got.append(await inbox.get())
        if not reads[number - 1]:
            got.append(await inbox.get())
        assert [token for out in got for token in out.token_ids] == list(range(number))
        assert [out.finish_reason for out in got] == [None] * (len(got) - 1) + ['length']
        assert got[0].num_cached_tokens == got[-1].num_cached_tokens == 16
        if with_logprobs:
            assert [one.logprob for out in got for one in out.logprobs] == [-float(i) for i in range(number)]

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.sampled_from('abc'), st.booleans()), max_size=12))
def test_what_comes_together_keeps_its_order(kinds):
    """Two steps that end together are one message, in which a request has a first token and the one behind it."""
    engine = AsyncEngine(EngineConfig('/m'))
    engine._inboxes = {name: Inbox(name) for name in 'abc'}
    said = {name: [] for name in 'abc'}
    message = []
    for token, (name, cached) in enumerate(kinds):
        message.append(SequenceOutput(name, [token], num_cached_tokens=16 if cached else 0))
        said[name].append(token)
    engine._deliver(*pack(message))

    async def read():
        return {name: (await engine._inboxes[name].get()).token_ids for name in 'abc' if said[name]}

    assert asyncio.run(read()) == {name: tokens for name, tokens in said.items() if tokens}


async def test_an_id_that_is_used_again_gets_nothing_of_the_request_before():
    """A caller leaves and comes back at once: what the engine said meanwhile is for nobody."""
    engine, sent = AsyncEngine(EngineConfig('/m')), []

    async def room():
        pass

    engine.model_config = SimpleNamespace(max_model_len=100)
    engine._client = SimpleNamespace(send=sent.append, room=room)
    names = []
    for token in (7, 9):
        answer = engine.generate([5], greedy(9), 'same')
        reader = asyncio.create_task(anext(answer))
        await asyncio.sleep(0)
        names.append(sent[-1][1].request_id)
        with pytest.raises(RequestError, match="request id 'same' is already running"):
            await anext(engine.generate([5], greedy(9), 'same'))
        engine._deliver([names[0]], [8], []) if token == 9 else None
        engine._deliver([names[-1]], [token], [])
        out = await asyncio.wait_for(reader, 5)
        assert (out.request_id, out.outputs[0].token_ids) == ('same', [token])
        await answer.aclose()
        assert sent[-1] == ('abort', names[-1])
    assert not engine._inboxes and not engine._names


async def test_a_reader_is_woken():
    inbox = Inbox('r')
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put_token(7)
    assert (await reader).token_ids == [7]


async def test_a_dead_engine_is_told_of_after_its_last_words():
    inbox = Inbox('r')
    inbox.put_token(7)
    inbox.fail(EngineDeadError('gone'))
    assert (await inbox.get()).token_ids == [7]
    for _ in range(2):
        with pytest.raises(EngineDeadError, match='gone'):
            await inbox.get()


@pytest.mark.parametrize('with_logprobs', [False, True])
async def test_what_comes_after_the_end_changes_nothing(with_logprobs):
    """An answer that was aborted here still gets the tokens that were on their way."""
    inbox = Inbox('r')
    inbox.put_token(1)
    inbox.put(SequenceOutput('r', [], finish_reason='abort'))
    late = SequenceOutput('r', [2], [TokenLogprobs(-1.0, 1, [], [])] if with_logprobs else None)
    for token in pack([late])[1]:
        inbox.put_token(token)
    for out in pack([late])[2]:
        inbox.put(out)
    out = await inbox.get()
    assert (out.token_ids, out.logprobs, out.finish_reason) == ([1], None, 'abort')


@pytest.mark.parametrize('end', [{'finish_reason': 'stop', 'stop_reason': 7}, {'finish_reason': 'error', 'error': 'x'}])
async def test_an_answer_that_has_ended_is_not_aborted(end):
    inbox = Inbox('r')
    inbox.put(SequenceOutput('r', [1], **end, complete=True))
    inbox.put(SequenceOutput('r', [], finish_reason='abort'))
    assert await inbox.get() == SequenceOutput('r', [1], **end, complete=True)
