"""Beam search: greedy at width 1, the best of all continuations at full width, and vLLM's steps between."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import BeamSearchParams, LoRARequest
from swiftlite.engine import RequestError
from tests.engine.runs import greedy, make_llm, random_prompts, run

PROMPTS = random_prompts(3, seed=21, low=3, high=12)


@pytest.fixture(scope='module')
def llm(base):
    return make_llm(base, max_logprobs=-1, enable_lora=True)


@pytest.fixture(scope='module')
def logprobs(base):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).requires_grad_(False)
    return lambda rows: torch.log_softmax(model(torch.tensor(rows)).logits[:, -1].double(), -1)


def test_a_single_beam_is_greedy(llm):
    outs = llm.beam_search(PROMPTS, BeamSearchParams(beam_width=1, max_tokens=8, ignore_eos=True))
    assert [o.sequences[0].tokens for o in outs] == [
        p + t for p, t in zip(PROMPTS, run(llm, PROMPTS, greedy(8)), strict=True)
    ]


def test_all_beams_find_the_best_of_all(llm, logprobs):
    prompt = PROMPTS[0]
    total = logprobs([prompt])[0][:, None] + logprobs([[*prompt, t] for t in range(128)])
    best = total.flatten().topk(5)
    out = llm.beam_search(prompt, BeamSearchParams(beam_width=64, max_tokens=2, ignore_eos=True))[0]
    assert [s.tokens[-2:] for s in out.sequences[:5]] == [[i // 128, i % 128] for i in best.indices.tolist()]
    assert [s.cum_logprob for s in out.sequences[:5]] == pytest.approx(best.values.tolist(), abs=1e-3)


@pytest.mark.parametrize('penalty', [1.0, 0.0, 3.0])
def test_the_steps_between(llm, logprobs, penalty):
    """The definition, written down again: 2 * width candidates of each beam, ended ones set aside."""
    width, steps, end = 3, 5, llm.engine.model_config.eos_token_ids[0]

    def score(beam):
        return beam[1] / (len(beam[0]) - (beam[0][-1] == end)) ** penalty

    outs = llm.beam_search(PROMPTS, BeamSearchParams(beam_width=width, max_tokens=steps, length_penalty=penalty))
    for prompt, out in zip(PROMPTS, outs, strict=True):
        live, done = [(prompt, 0.0)], []
        for _ in range(steps):
            rows = logprobs([tokens for tokens, _ in live])
            grown = [
                ([*tokens, t], total + float(row[t]))
                for (tokens, total), row in zip(live, rows, strict=True)
                for t in row.topk(2 * width).indices.tolist()
            ]
            done += [b for b in grown if b[0][-1] == end]
            live = sorted((b for b in grown if b[0][-1] != end), key=score, reverse=True)[:width]
        best = sorted(done + live, key=score, reverse=True)[:width]
        assert [s.tokens for s in out.sequences] == [tokens for tokens, _ in best]
        assert [s.cum_logprob for s in out.sequences] == pytest.approx([total for _, total in best], abs=1e-3)
        reasons = ['stop' if tokens[-1] == end else 'length' for tokens, _ in best]
        assert [s.finish_reason for s in out.sequences] == reasons


def test_limits_and_adapters(llm, base, adapters):
    lora = LoRARequest('a', 1, str(adapters[0]))
    params = BeamSearchParams(beam_width=2, max_tokens=4, ignore_eos=True)
    plain, tuned = llm.beam_search([PROMPTS[0]] * 2, params, lora_request=[None, lora])
    assert plain.sequences[0].tokens != tuned.sequences[0].tokens and tuned.sequences[0].lora_request is lora
    long = llm.beam_search([[5] * 254], BeamSearchParams(beam_width=2, max_tokens=9, ignore_eos=True))[0]
    assert [len(s.tokens) for s in long.sequences] == [256, 256]
    with pytest.raises(RequestError, match='beam_width 11 needs 22 log probabilities a step; this engine gives 20'):
        make_llm(base).beam_search(PROMPTS, BeamSearchParams(beam_width=11, max_tokens=2))
    with pytest.raises(RequestError, match='The prompt has 256 tokens, but the model takes 256 in all'):
        llm.beam_search([[5], [5] * 256], params)
    for penalty in (-10, 10.0):
        steep = BeamSearchParams(beam_width=2, max_tokens=2, ignore_eos=True, length_penalty=penalty)
        assert len(llm.beam_search([[5] * 200], steep)[0].sequences) == 2
    nan = float('nan')
    for bad in (
        {'beam_width': 0},
        {'max_tokens': 0},
        {'temperature': 1.0},
        {'length_penalty': nan},
        {'length_penalty': 11},
    ):
        with pytest.raises(RequestError):
            BeamSearchParams(**({'beam_width': 2, 'max_tokens': 2} | bad))
