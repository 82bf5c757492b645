"""Sampling parameters: what they refuse, and what each does to the tokens."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import LLM, SamplingParams
from swiftlite.engine import EngineRequest, RequestError
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts, run

PROMPT = random_prompts(1, seed=6, low=20, high=20)[0]


@pytest.fixture(scope='module')
def llm(base):
    return make_llm(base)


@pytest.fixture(scope='module')
def reference(base):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def one(llm, **params):
    settings = {'temperature': 0, 'max_tokens': 12, 'ignore_eos': True, 'detokenize': False} | params
    return llm.generate({'prompt_token_ids': PROMPT}, SamplingParams(**settings), use_tqdm=False)[0].outputs[0]


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('temperature', -0.1, 'temperature must be at least 0, got -0.1'),
        ('temperature', math.nan, 'finite number'),
        ('temperature', math.inf, 'finite number'),
        ('top_p', 0, 'above 0 and at most 1'),
        ('top_p', 1.1, 'above 0 and at most 1'),
        ('top_k', -2, 'top_k must be'),
        ('top_k', 1.5, 'an integer'),
        ('min_p', 2, 'between 0 and 1'),
        ('n', 0, 'between 1 and 16384'),
        ('n', True, 'an integer'),
        ('n', 10**9, 'between 1 and 16384'),
        ('max_tokens', 0, 'at least 1'),
        ('min_tokens', 17, 'at most max_tokens'),
        ('logprobs', -2, 'at least 0, or -1'),
        ('presence_penalty', 3, 'between -2 and 2'),
        ('frequency_penalty', -3, 'between -2 and 2'),
        ('repetition_penalty', 0, 'above 0'),
        ('seed', 2**63, '64-bit'),
        ('stop', [''], 'non-empty'),
        ('stop_token_ids', [-1], 'token ids'),
        ('logit_bias', {1: math.inf}, 'finite'),
        ('logit_bias', {1: 1e39}, 'finite'),  # infinite in fp32
        ('logit_bias', [1], 'a dict'),
        ('temperature', 1e39, 'finite number'),
        ('prompt_logprobs', -2, 'at least 0, or -1'),
        ('prompt_logprobs', 1.5, 'an integer'),
        ('allowed_token_ids', [], 'non-empty list of token ids'),
        ('allowed_token_ids', [-1], 'token ids'),
        ('allowed_token_ids', 5, 'token ids'),
        ('bad_words', [''], 'non-empty texts'),
        ('bad_words', [5], 'non-empty texts'),
        ('bad_words', ['a\ud800'], 'texts of Unicode'),
        ('bad_words', ['a'] * 2000, 'at most 1024'),
        ('truncate_prompt_tokens', 0, 'at least 1, or -1'),
        ('ignore_eos', 'no', 'true or false'),
        ('best_of', 3, 'not supported: .* use n'),
        ('use_beam_search', True, 'LLM.beam_search'),
        ('length_penalty', 0.5, 'LLM.beam_search'),
        ('logits_processors', [len], 'logit_bias, bad_words'),
        ('flat_logprobs', True, 'one dict a token'),
        ('temperatur', 0.5, "no field 'temperatur'; did you mean 'temperature'"),
        ('structured_outputs', 'json', 'or a dict, got str'),
    ],
)
def test_out_of_range_is_one_sentence(field, value, says):
    with pytest.raises(RequestError, match=says) as caught:
        SamplingParams(**{field: value})
    assert field in str(caught.value) and '\n' not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_values_that_ask_for_nothing_are_taken():
    params = SamplingParams(
        n=2, best_of=2, use_beam_search=False, length_penalty=1.0, early_stopping=False, logits_processors=[],
        flat_logprobs=False, extra_args={}, structured_outputs=None, guided_decoding=None, top_k=-1,
    )  # fmt: skip
    assert params == SamplingParams(n=2) and params.clone(n=1) == SamplingParams()


@pytest.mark.parametrize(
    'params',
    [
        {'stop_token_ids': [128]},
        {'logit_bias': {500: 1.0}},
        {'allowed_token_ids': [3, 128]},
        {'bad_words_token_ids': ((5, 128),)},
    ],
)
def test_ids_beyond_the_vocabulary_are_refused_and_the_next_request_runs(llm, params):
    with pytest.raises(RequestError, match='vocabulary has 128'):
        one(llm, **params)
    assert len(one(llm).token_ids) == 12


PROCESSED = (
    {'repetition_penalty': 1.7},
    {'presence_penalty': 1.5},
    {'frequency_penalty': 1.2},
    {'repetition_penalty': 1.3, 'presence_penalty': 0.7, 'frequency_penalty': -0.4, 'logit_bias': {7: 2.0}},
    {'logit_bias': {5: 4.0, 9: -9.0}},
    {'allowed_token_ids': [9, 70, 3, 70, 55, 120]},
    {'allowed_token_ids': [9, 70], 'bad_words_token_ids': ((9,),), 'repetition_penalty': 1.5},
)


def test_processors_are_those_of_their_definitions(llm, reference):
    """Each alone, and all of them in one batch."""
    batch = [greedy(12, **params) for params in (*PROCESSED, {})]
    together = run(llm, [PROMPT, *random_prompts(6, seed=3), PROMPT], batch)
    assert together[0] == run(llm, [PROMPT], batch[0])[0] and together[-1] == one(llm).token_ids
    assert together[3] == run(llm, [random_prompts(6, seed=3)[2]], batch[3])[0]
    for params in PROCESSED:
        tokens = one(llm, **params).token_ids
        for step, token in enumerate(tokens):
            done = tokens[:step]
            logits = reference(torch.tensor([PROMPT + done])).logits[0, -1].float()
            for t in set(PROMPT + done):
                p = params.get('repetition_penalty', 1.0)
                logits[t] = logits[t] / p if logits[t] > 0 else logits[t] * p
            for t in set(done):
                logits[t] -= params.get('presence_penalty', 0) + params.get('frequency_penalty', 0) * done.count(t)
            for t, bias in params.get('logit_bias', {}).items():
                logits[t] += bias
            if 'allowed_token_ids' in params:
                allowed = {*params['allowed_token_ids']} - {word[0] for word in params.get('bad_words_token_ids', ())}
                logits[[t for t in range(128) if t not in allowed]] = -math.inf
            assert logits.max() - logits[token] < 1e-4
        assert tokens != one(llm).token_ids


def test_samples_follow_the_distribution(llm, reference):
    """2,000 first tokens against the softmax, with and without filters."""
    logits = reference(torch.tensor([PROMPT])).logits[0, -1].double()
    for params in ({}, {'temperature': 0.7}, {'top_k': 4}, {'top_p': 0.6}, {'min_p': 0.2}):
        settings = {'temperature': 1.0, 'max_tokens': 1, 'ignore_eos': True, 'detokenize': False, 'n': 2000} | params
        out = llm.generate({'prompt_token_ids': PROMPT}, SamplingParams(**settings), use_tqdm=False)[0]
        counts = torch.bincount(torch.tensor([o.token_ids[0] for o in out.outputs]), minlength=128).double() / 2000
        p = torch.softmax(logits / settings['temperature'], 0)
        order = p.argsort(descending=True)
        if 'top_k' in params:
            p[order[4:]] = 0
        if 'top_p' in params:
            p[order[1 + int((p[order].cumsum(0) < 0.6).sum()) :]] = 0
        if 'min_p' in params:
            p[p < 0.2 * p.max()] = 0
        p = p / p.sum()
        assert counts[p == 0].sum() == 0
        assert (counts - p).abs().max() < 5 * (0.25 / 2000) ** 0.5


def test_min_tokens_holds_the_end_back(base):
    llm = make_llm(base)
    free = run(llm, [PROMPT], greedy(12))[0]
    params = SamplingParams(
        temperature=0, max_tokens=12, min_tokens=6, stop_token_ids=[free[2]], ignore_eos=True, detokenize=False
    )
    held = run(llm, [PROMPT], params)[0]
    assert held[:2] == free[:2] and free[2] not in held[:6] and len(held) > 6


def test_logprobs_beside_greedy(llm):
    out = one(llm, logprobs=3, max_tokens=4)
    assert [len(step) for step in out.logprobs] == [3] * 4
    assert out.cumulative_logprob == pytest.approx(
        sum(s[t].logprob for s, t in zip(out.logprobs, out.token_ids, strict=True))
    )
    none = one(llm, logprobs=0, max_tokens=4)
    assert [list(step) for step in none.logprobs] == [[t] for t in none.token_ids]
    assert one(llm).logprobs is None


def test_bad_words_never_come_out(base, llm, reference):
    """Single tokens, pairs and triples, looked for in the answer only; steps ahead of their results too."""
    words: list[tuple[int, ...]] = []
    for length in (2, 3, 1, 2):
        free = one(llm, bad_words_token_ids=tuple(words) or None).token_ids
        words.append(tuple(free[4 : 4 + length]))
    late = make_llm(base, lookahead=1)
    hold_results_back(late.engine)
    for engine in (llm, late):
        params = {'bad_words_token_ids': tuple(words)}
        tokens = one(engine, **params).token_ids
        for step, token in enumerate(tokens):
            done = tokens[:step]
            logits = reference(torch.tensor([PROMPT + done])).logits[0, -1].float()
            for word in words:
                if len(word) == 1 or tuple(done[-len(word) + 1 :]) == word[:-1]:
                    logits[word[-1]] = -math.inf
            assert logits[token] > -math.inf and logits.max() - logits[token] < 1e-4
    # the prompt does not count, and a word that would leave nothing does not hold
    free = one(llm).token_ids
    assert one(llm, bad_words_token_ids=((PROMPT[-1], free[0]),)).token_ids[0] == free[0]
    only = {'allowed_token_ids': [9], 'bad_words_token_ids': ((9, 9),), 'temperature': 1.0, 'top_k': 5}
    assert one(llm, **only).token_ids == [9] * 12
    with pytest.raises(RequestError, match='forbids every token'):
        one(llm, allowed_token_ids=[9], bad_words_token_ids=((9,),))
    with pytest.raises(RequestError, match='needs a tokenizer'):
        one(llm, bad_words=['no'])


def test_bad_words_as_texts():
    llm = LLM('tiny-chat')
    question = [{'role': 'user', 'content': 'who are you?'}]
    plain = SamplingParams(temperature=0, max_tokens=30)
    text = llm.chat(question, plain, use_tqdm=False)[0].outputs[0].text
    assert 'tiny-chat' in text and 'assistant' in text
    params = plain.clone(bad_words=['assistant', 'tiny'])
    banned = llm.chat(question, params, use_tqdm=False)[0].outputs[0]
    assert ' assistant' not in banned.text and 'tiny' not in banned.text
    with pytest.raises(RequestError, match='needs its token ids'):
        llm.engine.add_request(EngineRequest('x', [5], SamplingParams(bad_words=['a'])))
    assert params.clone(bad_words=None).bad_words_token_ids is None


def test_the_end_of_a_prompt(llm):
    for keep, kept in ((3, PROMPT[-3:]), (50, PROMPT), (-1, PROMPT)):
        params = greedy(4, truncate_prompt_tokens=keep)
        out = llm.generate(PROMPT, params, use_tqdm=False)[0]
        assert out.prompt_token_ids == kept
        assert out.outputs[0].token_ids == run(llm, [kept], greedy(4))[0]
    long = llm.generate(PROMPT * 30, greedy(4, truncate_prompt_tokens=-1), use_tqdm=False)[0]
    assert len(long.prompt_token_ids) == 256 - 4 and len(long.outputs[0].token_ids) == 4
