"""Log probabilities of prompts: transformers' values, however the prompt was computed."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite.engine import RequestError
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts

PROMPTS = [*random_prompts(9, seed=11), [5]]
ANSWER = 12


@pytest.fixture(scope='module')
def expected(base):
    """Of each prompt, log softmax [len, vocab] at every position."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return [torch.log_softmax(model(torch.tensor([p])).logits[0].double(), -1) for p in PROMPTS]


@pytest.fixture(scope='module')
def alone(base):
    """The answers that these prompts have without log probabilities."""
    outs = make_llm(base, enable_prefix_caching=False).generate(PROMPTS, greedy(ANSWER), use_tqdm=False)
    return [o.outputs[0].token_ids for o in outs]


def check(outs, expected, k):
    for out, prompt, wanted in zip(outs, PROMPTS, expected, strict=True):
        assert out.prompt_logprobs[0] is None and len(out.prompt_logprobs) == len(prompt)
        for i, found in enumerate(out.prompt_logprobs[1:], 1):
            row = wanted[i - 1]
            best = row.topk(k).indices.tolist()
            assert set(found) == {*best, prompt[i]}
            for token, entry in found.items():
                assert entry.logprob == pytest.approx(float(row[token]), abs=1e-4)
                assert entry.rank == int((row > row[token]).sum()) + 1


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'max_num_batched_tokens': 7},
        {'max_num_seqs': 2, 'block_size': 4},
        {'max_num_batched_tokens': 11, 'block_size': 4, 'num_gpu_blocks_override': 25, 'max_model_len': 100},
        {'lookahead': 1},
        {
            'lookahead': 1,
            'max_num_batched_tokens': 11,
            'block_size': 4,
            'num_gpu_blocks_override': 25,
            'max_model_len': 100,
        },
    ],
)
def test_they_are_those_of_transformers(base, expected, alone, options):
    llm = make_llm(base, **options)
    if 'lookahead' in options:
        hold_results_back(llm.engine)
    params = greedy(ANSWER, prompt_logprobs=3)
    for _ in range(2):  # what is cached is computed again
        outs = llm.generate(PROMPTS, params, use_tqdm=False)
        check(outs, expected, 3)
        assert [o.outputs[0].token_ids for o in outs] == alone
        if 'num_gpu_blocks_override' not in options:
            assert all(o.num_cached_tokens == 0 for o in outs)
    assert ('num_gpu_blocks_override' in options) == (llm.engine.stats()['num_preemptions'] > 0)
    assert llm.engine.stats()['blocks_used'] == 0


def test_logits_exist_for_a_few_rows_at_a_time(base, expected, monkeypatch):
    monkeypatch.setattr('swiftlite.engine.runner.model_runner.AT_ONCE', 5 * 128)
    llm = make_llm(base)
    model, most = llm.engine.executor.runner.model, []
    logits = model.logits
    model.logits = lambda hidden: most.append(hidden.shape[0]) or logits(hidden)
    check(llm.generate(PROMPTS, greedy(1, prompt_logprobs=1), use_tqdm=False), expected, 1)
    assert sorted(most)[-2:] == [5, len(PROMPTS)] and len(most) > 30


def test_beside_others_and_with_several_answers(base, expected, alone):
    llm = make_llm(base)
    params = [greedy(ANSWER, prompt_logprobs=2) if i % 2 else greedy(ANSWER) for i in range(len(PROMPTS))]
    outs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outs] == alone
    assert [o.prompt_logprobs is None for o in outs] == [i % 2 == 0 for i in range(len(PROMPTS))]
    outs = llm.generate(PROMPTS, greedy(ANSWER, n=2, prompt_logprobs=0), use_tqdm=False)
    check(outs, expected, 0)
    assert [o.outputs[1].token_ids for o in outs] == alone


def test_the_whole_vocabulary_for_those_who_asked_at_the_start(base, expected):
    with pytest.raises(RequestError, match='prompt_logprobs must be between 0 and 20, got -1'):
        make_llm(base).generate(PROMPTS, greedy(1, prompt_logprobs=-1), use_tqdm=False)
    with pytest.raises(RequestError, match='logprobs must be between 0 and 20, got 21'):
        make_llm(base).generate(PROMPTS, greedy(1, logprobs=21), use_tqdm=False)
    llm = make_llm(base, max_logprobs=-1)
    outs = llm.generate(PROMPTS[:2], greedy(2, logprobs=-1, prompt_logprobs=-1), use_tqdm=False)
    assert all(len(step) == 128 for o in outs for step in o.outputs[0].logprobs + o.prompt_logprobs[1:])
    first = outs[0].outputs[0].logprobs[0]
    assert [first[t].logprob for t in range(128)] == pytest.approx(expected[0][-1].tolist(), abs=1e-4)
