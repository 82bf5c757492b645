"""Sampling parameters: what they refuse, and what each does to the tokens."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import SamplingParams
from swiftlite.engine import RequestError
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
    ],
)
def test_out_of_range_is_one_sentence(field, value, says):
    with pytest.raises(RequestError, match=says) as caught:
        SamplingParams(**{field: value})
    assert field in str(caught.value) and '\n' not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize('params', [{'stop_token_ids': [128]}, {'logit_bias': {500: 1.0}}])
def test_ids_beyond_the_vocabulary_are_refused_and_the_next_request_runs(llm, params):
    with pytest.raises(RequestError, match='vocabulary has 128'):
        one(llm, **params)
    assert len(one(llm).token_ids) == 12


def test_penalties_are_those_of_their_definitions(llm, reference):
    for params in (
        {'repetition_penalty': 1.7},
        {'presence_penalty': 1.5},
        {'frequency_penalty': 1.2},
        {'logit_bias': {5: 4.0, 9: -9.0}},
    ):
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
