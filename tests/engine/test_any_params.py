"""Any sampling parameters at all: refused in one sentence or run, and the next request answers as before."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftlite import SamplingParams
from swiftlite.engine import RequestError
from tests.engine.runs import greedy, make_llm, random_prompts

PROMPTS = random_prompts(3, seed=9, low=4, high=30)
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 1e-30, 1e-6, 0.5, 2, -2, 1e30, -1e30, 3e38, 1e39, 1e308, math.inf, -math.inf, math.nan]),
    st.floats(0, 2),
    st.none(),
    st.booleans(),
    st.text(max_size=2),
)
counts = st.one_of(st.integers(-2, 24), st.sampled_from([2**31, 2**63, -(2**63), 10**30]), st.none(), st.floats(0, 3))
tokens = st.one_of(st.integers(0, 127), st.sampled_from([-1, 128, 2**31, 2**63]), st.none(), st.booleans())
values = {
    **dict.fromkeys(
        ('temperature', 'top_p', 'min_p', 'presence_penalty', 'frequency_penalty', 'repetition_penalty'), numbers
    ),
    **dict.fromkeys(('top_k', 'min_tokens', 'max_tokens', 'seed', 'logprobs', 'prompt_logprobs'), counts),
    'truncate_prompt_tokens': counts,
    'n': st.integers(-1, 3),
    **dict.fromkeys(('stop_token_ids', 'allowed_token_ids'), st.one_of(st.none(), st.lists(tokens, max_size=4))),
    'logit_bias': st.one_of(st.none(), st.dictionaries(tokens, numbers, max_size=4)),
    'bad_words_token_ids': st.one_of(
        st.none(), st.lists(st.lists(st.integers(0, 127), min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)
    ),
    'ignore_eos': st.booleans(),
}


@pytest.fixture(scope='module')
def llm(base):
    return make_llm(base, max_model_len=64)


@pytest.fixture(scope='module')
def plain(llm):
    return llm.generate(PROMPTS[0], greedy(6), use_tqdm=False)[0].outputs[0].token_ids


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_parameters(llm, plain, data):
    batch = []
    for _ in PROMPTS:
        names = data.draw(st.lists(st.sampled_from(sorted(values)), unique=True, max_size=5))
        given_values = {name: data.draw(values[name]) for name in names}
        try:
            params = SamplingParams(**({'max_tokens': 5, 'detokenize': False} | given_values))
        except RequestError as error:
            assert '\n' not in str(error) and any(name in str(error) for name in names)
            params = greedy(5)
        batch.append(params)
    try:
        outs = llm.generate(PROMPTS, batch, use_tqdm=False)
    except RequestError as error:
        assert '\n' not in str(error)
    else:
        for out, params in zip(outs, batch, strict=True):
            assert len(out.outputs) == params.n and out.finished
            for answer in out.outputs:
                assert all(0 <= t < 128 for t in answer.token_ids) and answer.finish_reason in ('stop', 'length')
                if params.allowed_token_ids is not None:
                    assert set(answer.token_ids) <= set(params.allowed_token_ids)
    assert llm.generate(PROMPTS[0], greedy(6), use_tqdm=False)[0].outputs[0].token_ids == plain
    assert llm.engine.stats()['blocks_used'] == 0


@pytest.mark.parametrize('wrong', [{'stop': 5}, {'stop_token_ids': 2}, {'stop': {'a': 1}}, {'stop': [b'a']}])
def test_stops_of_another_type_are_one_sentence(wrong):
    with pytest.raises(RequestError, match=f'^{next(iter(wrong))} must be '):
        SamplingParams(**wrong)
