"""The engine against itself: how requests are batched, cached or interrupted never changes a token."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftlite import LoRARequest, SamplingParams
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts, run

PROMPTS = random_prompts(12, seed=5)


@pytest.fixture(scope='module')
def alone(base):
    """Each prompt's tokens when nothing else runs and nothing is cached."""
    llm = make_llm(base, enable_prefix_caching=False)
    return [run(llm, [p])[0] for p in PROMPTS]


def test_batched_is_alone(base, alone):
    assert run(make_llm(base), PROMPTS) == alone


@pytest.mark.parametrize('budget', [1, 7, 64])
def test_chunked_prefill_changes_nothing(base, alone, budget):
    assert run(make_llm(base, max_num_batched_tokens=budget), PROMPTS) == alone


@pytest.mark.parametrize('seqs', [1, 3])
def test_fewer_slots_than_requests(base, alone, seqs):
    assert run(make_llm(base, max_num_seqs=seqs), PROMPTS) == alone


@pytest.mark.parametrize('block_size', [1, 5, 32])
def test_block_size_changes_nothing(base, alone, block_size):
    assert run(make_llm(base, block_size=block_size, num_gpu_blocks_override=2000 // block_size), PROMPTS) == alone


@pytest.mark.parametrize('lookahead', [1, 2])
def test_steps_ahead_of_their_results_change_nothing(base, alone, lookahead):
    llm = make_llm(base, lookahead=lookahead)
    hold_results_back(llm.engine)
    assert run(llm, PROMPTS) == alone
    assert llm.engine.stats()['blocks_used'] == 0


def test_preempted_is_not_preempted(base, alone):
    llm = make_llm(base, num_gpu_blocks_override=16, max_model_len=100)
    assert run(llm, PROMPTS) == alone
    assert llm.engine.stats()['num_preemptions'] > 0
    assert llm.engine.stats()['blocks_used'] == 0


def test_preempted_with_a_token_in_flight(base, alone):
    llm = make_llm(base, num_gpu_blocks_override=16, max_model_len=100, lookahead=1)
    hold_results_back(llm.engine)
    assert run(llm, PROMPTS) == alone
    assert llm.engine.stats()['num_preemptions'] > 0


def test_cached_is_not_cached(base, alone):
    llm = make_llm(base)
    assert run(llm, PROMPTS) == alone
    assert run(llm, PROMPTS) == alone
    stats = llm.engine.stats()
    assert stats['prefix_hits'] > sum(len(p) for p in PROMPTS) / 3


def test_shared_prefixes_are_shared_within_one_step(base):
    head = random_prompts(1, seed=8, low=64, high=64)[0]
    prompts = [head + p for p in random_prompts(6, seed=1, low=1, high=20)]
    llm = make_llm(base)
    expected = [run(make_llm(base, enable_prefix_caching=False), [p])[0] for p in prompts]
    assert run(llm, prompts) == expected
    assert llm.engine.stats()['prefix_hits'] == 64 * 5


def test_a_stop_token_ends_one_and_leaves_the_others(base, alone):
    stop = alone[0][7]
    params = [SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, detokenize=False, stop_token_ids=[stop])]
    params += [greedy()] * (len(PROMPTS) - 1)
    llm = make_llm(base, lookahead=1)
    hold_results_back(llm.engine)
    outs = llm.generate([{'prompt_token_ids': p} for p in PROMPTS], params, use_tqdm=False)
    first = outs[0].outputs[0]
    assert first.token_ids == alone[0][: alone[0].index(stop) + 1]
    assert (first.finish_reason, first.stop_reason) == ('stop', stop)
    assert [o.outputs[0].token_ids for o in outs[1:]] == alone[1:]
    assert all(o.outputs[0].finish_reason == 'length' for o in outs[1:])


def test_a_seed_is_its_own_whatever_runs_beside_it(base):
    params = SamplingParams(
        temperature=1.0, top_p=0.9, top_k=40, seed=7, max_tokens=20, ignore_eos=True, detokenize=False
    )
    llm = make_llm(base)
    alone = run(llm, [PROMPTS[0]], params)[0]
    others = [params.clone(seed=i, temperature=0.5 + i / 10) for i in range(len(PROMPTS) - 1)]
    assert run(llm, [*PROMPTS[1:], PROMPTS[0]], [*others, params])[-1] == alone
    assert run(llm, [PROMPTS[0]], params.clone(seed=8))[0] != alone


def test_answers_without_a_seed_differ_and_repeat_with_the_engines(base):
    params = SamplingParams(temperature=1.5, n=4, max_tokens=12, ignore_eos=True, detokenize=False)

    def four(seed):
        out = make_llm(base, seed=seed).generate({'prompt_token_ids': PROMPTS[0]}, params, use_tqdm=False)[0]
        return [o.token_ids for o in out.outputs]

    first = four(1)
    assert len({tuple(t) for t in first}) == 4
    assert four(1) == first
    assert four(2) != first


def test_adapters_mixed_are_each_alone(base, adapters):
    loras = [None] + [LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters)]
    mix = [loras[i % 4] for i in range(len(PROMPTS))]
    llm = make_llm(base, enable_lora=True)
    expected = [run(make_llm(base, enable_lora=True), [p], lora=lora)[0] for p, lora in zip(PROMPTS, mix, strict=True)]
    assert run(llm, PROMPTS, lora=mix) == expected
    assert run(llm, PROMPTS, lora=mix) == expected  # from the cache, each adapter its own entries
    assert llm.engine.stats()['prefix_hits'] > 0
    assert len({tuple(run(llm, [PROMPTS[0]], lora=lora)[0]) for lora in loras}) == 4


def test_adapters_that_do_not_fit_together_take_turns(base, adapters):
    loras = [LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters)]
    mix = [loras[i % 3] for i in range(len(PROMPTS))]
    expected = run(make_llm(base, enable_lora=True), PROMPTS, lora=mix)
    small = make_llm(base, enable_lora=True, max_loras=1, max_lora_rank=16)
    assert run(small, PROMPTS, lora=mix) == expected
    assert small.engine.adapters.pages_used <= 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_of_arrivals_aborts_and_limits(base, adapters, shared, data):
    """Requests that come and go between steps: survivors answer as if alone, and nothing is left behind."""
    from swiftlite.engine.request import EngineRequest

    engine = shared.engine
    for left in list(engine._sequences):  # by an example that ended early
        engine.abort(left)
    while engine.has_work:
        engine.step()
    loras = [None] + [LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters)]
    found: dict[str, list[int]] = {}
    wanted: dict[str, tuple] = {}
    for step in range(data.draw(st.integers(3, 12))):
        for i in range(data.draw(st.integers(0, 3))):
            prompt = data.draw(st.lists(st.integers(2, 127), min_size=1, max_size=40))
            lora, n = data.draw(st.sampled_from(loras)), data.draw(st.integers(1, 12))
            request = EngineRequest(f'{step}.{i}', prompt, greedy(n), lora)
            engine.add_request(request)
            found[request.request_id], wanted[request.request_id] = [], (prompt, n, lora)
        if wanted and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(wanted)))
            engine.abort(gone)
            del wanted[gone]
        for out in engine.step():
            found[out.request_id] += out.token_ids
    while engine.has_work:
        for out in engine.step():
            found[out.request_id] += out.token_ids
    stats = engine.stats()
    assert (stats['blocks_used'], stats['num_running'], stats['num_waiting']) == (0, 0, 0)
    assert sorted(engine.scheduler._slots) == list(range(16))
    for name, (prompt, n, lora) in wanted.items():
        assert found[name] == run(shared, [prompt], greedy(n), lora)[0]


@pytest.fixture(scope='module')
def shared(base):
    return make_llm(base, enable_lora=True, num_gpu_blocks_override=24, max_model_len=80, max_num_batched_tokens=48)


def test_a_single_rows_fused_products_change_nothing(base, alone):
    """The path of one decoding sequence on a GPU, here on the references."""
    llm = make_llm(base)
    llm.engine.executor.runner.model.rows_alone = True
    assert [run(llm, [p])[0] for p in PROMPTS] == alone
