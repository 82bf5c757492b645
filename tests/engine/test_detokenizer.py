"""Text as it comes is the text of all tokens, in whole characters; stop strings cut it wherever tokens fall."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from swiftlite.engine.detokenizer import HELD, Detokenizer, StopChecker
from swiftlite.engine.output_processor import RequestState, accumulate
from swiftlite.engine.outputs import CompletionOutput, SequenceOutput, TokenLogprobs, pack
from swiftlite.engine.process.inbox import Inbox
from swiftlite.engine.request import EngineRequest
from swiftlite.engine.sampling_params import SamplingParams


@pytest.fixture(scope='module')
def tokenizer():
    """Byte-level, one token a byte: every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.add_special_tokens({'additional_special_tokens': ['<|end|>']})
    return tokenizer


@given(text=st.text(max_size=60))
def test_pieces_make_the_whole_and_none_is_half_a_character(tokenizer, text):
    ids = tokenizer(text)['input_ids']
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.add(i) for i in ids]
    assert ''.join(pieces) == tokenizer.decode(ids)
    assert all('\ufffd' not in piece for piece in pieces) or '\ufffd' in text


def test_an_incomplete_character_is_never_shown(tokenizer):
    ids = tokenizer('好')['input_ids']
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.add(i) for i in ids] == ['', '', '好']
    assert [Detokenizer(tokenizer).add(i) for i in ids[:2]] == ['', '']


def test_bytes_that_never_make_a_character_do_not_hold_the_rest_back(tokenizer):
    broken = tokenizer('é')['input_ids'][0]
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.add(broken) for _ in range(50)] + [detokenizer.add(i) for i in tokenizer('ok')['input_ids']]
    assert ''.join(pieces).endswith('ok')
    assert len(detokenizer._window) <= 2 * HELD + 2


def test_special_tokens_are_skipped_unless_asked_for(tokenizer):
    ids = tokenizer('a<|end|>b')['input_ids']
    for skip, expected in ((True, 'ab'), (False, 'a<|end|>b')):
        detokenizer = Detokenizer(tokenizer, skip)
        assert ''.join(detokenizer.add(i) for i in ids) == expected


@given(
    text=st.text('abc', max_size=40),
    stops=st.lists(st.text('abc', min_size=1, max_size=4), max_size=3),
    include=st.booleans(),
    cuts=st.randoms(),
)
def test_stop_strings_cut_the_same_however_the_text_arrives(text, stops, include, cuts):
    hits = [(text.find(s) + len(s), text.find(s), s) for s in stops if s in text]
    checker, shown, at, stop = StopChecker(stops, include), '', 0, None
    while at < len(text) and stop is None:
        step = cuts.randint(1, 3)
        new, stop = checker.add(text[at : at + step])
        shown, at = shown + new, at + step
    if not hits:
        assert stop is None and shown + checker.flush() == text
        return
    assert stop is not None
    begin = text.find(stop)
    assert shown == text[: begin + len(stop) if include else begin]
    assert begin <= min(end for end, _, _ in hits)  # not later than the first stop string to be complete


@given(text=st.text(max_size=40), cut=st.integers(0, 3), stop=st.booleans())
def test_text_made_at_the_end_is_the_text_that_came(tokenizer, text, cut, stop):
    ids = tokenizer(text)['input_ids']
    ids = ids[: max(len(ids) - cut, 1)] or [5]
    streamed, whole = (RequestState(EngineRequest('x', [1], SamplingParams()), tokenizer) for _ in range(2))
    came, total = '', CompletionOutput(0, '', [])
    for i, token in enumerate(ids):
        last = i == len(ids) - 1
        out = SequenceOutput('x', [token], finish_reason=('stop' if stop else 'length') if last else None)
        came += streamed.update(out).text
        whole.collect(out, total)
    assert total.text == came.rstrip('\ufffd')
    assert (total.token_ids, total.finish_reason) == (ids, 'stop' if stop else 'length')


def test_a_character_whole_beside_half_of_another_is_shown_at_the_end():
    class Words:
        """Token 0 holds a whole character and the first byte of the next."""

        def decode(self, ids, **options):
            return b''.join([b'ok\xe5', b'\xa5', b'\xbd'][i] for i in ids).decode(errors='replace')

    for ids, text in (([0], 'ok'), ([0, 1], 'ok'), ([0, 1, 2], 'ok好')):
        for stop, shown in ((None, text), ('k', 'o')):
            state = RequestState(EngineRequest('x', [1], SamplingParams(stop=stop)), Words())
            came = ''
            for i, token in enumerate(ids):
                last = i == len(ids) - 1
                delta = state.update(SequenceOutput('x', [token], finish_reason='length' if last else None))
                came += delta.text
                if state.finished:
                    break
            assert (came, delta.finish_reason) == (shown, 'stop' if stop else 'length')


def test_stop_strings_wait_for_min_tokens(tokenizer):
    ids = tokenizer('aXbXc')['input_ids']
    for min_tokens, expected in ((0, 'a'), (1, 'a'), (2, 'aXb'), (4, 'aXbXc')):
        state = RequestState(EngineRequest('x', [1], SamplingParams(stop='X', min_tokens=min_tokens)), tokenizer)
        came = ''
        for token in ids:
            came += state.update(SequenceOutput('x', [token])).text
            if state.finished:
                break
        assert came == expected


class Counted(str):
    """A stop string that counts the characters copied out of it."""

    copied = 0

    def __getitem__(self, index):
        piece = super().__getitem__(index)
        Counted.copied += len(piece)
        return piece


def test_enormous_stop_strings_cost_little(monkeypatch):
    """What is looked at is as long as the text that is held back, not as the stop string."""
    monkeypatch.setattr(Counted, 'copied', 0)
    stops = [Counted('z' * n) for n in (20_000, *range(1000, 1300))]
    checker = StopChecker(stops, False)
    shown = ''.join(checker.add('zz ' if i % 50 == 49 else 'z')[0] for i in range(100))
    assert len(shown + checker.flush()) == 104
    assert 0 < Counted.copied < 100 * len(stops) * 60


def test_as_many_logprobs_as_asked_for_whatever_the_step_holds(tokenizer):
    crowd = TokenLogprobs(-3.0, 4, [7, 8, 9], [-0.5, -1.0, -2.0])
    for asked, expected in ((0, {11}), (1, {7, 11}), (3, {7, 8, 9, 11})):
        state = RequestState(EngineRequest('x', [1], SamplingParams(logprobs=asked)), tokenizer)
        assert state.update(SequenceOutput('x', [11], [crowd])).logprobs[0].keys() == expected


@settings(max_examples=150)
@given(st.data())
def test_outputs_read_as_one_are_the_outputs_read_one_by_one(tokenizer, data):
    """Through an inbox whose reader comes whenever: text, tokens, logprobs, ends and stop strings are the same."""
    ids = tokenizer(data.draw(st.text('abé<中', min_size=1, max_size=30)))['input_ids']
    ids += data.draw(st.sampled_from([[], tokenizer('<|end|>')['input_ids']]))
    reason = data.draw(st.sampled_from(['stop', 'length', 'abort']))
    params = SamplingParams(
        stop=data.draw(st.lists(st.text('abé<中', min_size=1, max_size=3), max_size=2)),
        include_stop_str_in_output=data.draw(st.booleans()),
        min_tokens=data.draw(st.integers(0, 8)),
        max_tokens=100,
        logprobs=data.draw(st.sampled_from([None, 1])),
    )
    prompt_logprobs = data.draw(st.sampled_from([None, [TokenLogprobs(-1.0, 1, [5], [-1.0])]]))

    def outputs():
        for i, token in enumerate(ids):
            logprobs = None if params.logprobs is None else [TokenLogprobs(-float(i), 1, [token], [-float(i)])]
            end = reason if i == len(ids) - 1 and reason != 'abort' else None
            out = SequenceOutput('r', [token], logprobs, end, num_cached_tokens=16 if i == 0 or end else 0)
            out.prompt_logprobs = prompt_logprobs if i == 0 else None
            yield out
        if reason == 'abort':
            yield SequenceOutput('r', [], finish_reason='abort')

    async def answer(together):
        state, inbox, total = RequestState(EngineRequest('r', [5, 5], params), tokenizer), Inbox('r'), None
        total, prompt, cached = CompletionOutput(0, '', []), None, []
        for out in outputs():
            for token in pack([out])[1]:
                inbox.put_token(token)
            for other in pack([out])[2]:
                inbox.put(other)
            if out.finish_reason is None and together and data.draw(st.booleans()):
                continue
            delta = state.update(await inbox.get())
            wrapped = state.wrap(delta)
            accumulate(total, delta)
            assert delta.logprobs is None or len(delta.logprobs) == len(delta.token_ids)
            prompt = prompt or wrapped.prompt_logprobs
            cached.append(wrapped.num_cached_tokens)
            if state.finished:
                break
        assert set(cached) == {16}
        return total, prompt, state.finished, state.stopped or total.finish_reason is not None

    assert asyncio.run(answer(True)) == asyncio.run(answer(False))
