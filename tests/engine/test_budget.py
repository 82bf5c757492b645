"""How many tokens a step takes."""

from hypothesis import given
from hypothesis import strategies as st

from swiftlite.engine import budget
from swiftlite.engine.budget import LIGHT, TILE, step_budget
from swiftlite.engine.request import EngineRequest
from tests.engine.runs import greedy, make_llm, random_prompts, run


@given(st.integers(1, 16384), st.integers(0, 2048), st.integers(0, 1 << 20))
def test_budget(most, decodes, waiting):
    tokens = step_budget(most, decodes, waiting)
    assert tokens <= most
    if not decodes or waiting > LIGHT:
        assert tokens == most
    elif tokens < most:
        assert tokens % TILE == 0 and TILE <= tokens - decodes < 2 * TILE


def test_a_long_prompt_comes_in_pieces_beside_answers_that_run(base, monkeypatch):
    monkeypatch.setattr(budget, 'TILE', 16)
    short, long = random_prompts(1, seed=1)[0][:8], random_prompts(1, seed=2, low=200, high=201)[0]
    alone = run(make_llm(base), [short, long], greedy(40))
    engine = make_llm(base).engine
    steps = []
    submit = engine.executor.submit
    engine.executor.submit = lambda plan: (steps.append(plan.counts.tolist()), submit(plan))[1]
    found = {'short': [], 'long': []}
    engine.add_request(EngineRequest('short', short, greedy(40)))
    while len(found['short']) < 3:
        _step(engine, found)
    engine.add_request(EngineRequest('long', long, greedy(40)))
    while engine.has_work:
        _step(engine, found)
    assert [found['short'], found['long']] == alone
    assert max(map(sum, steps)) == 32
    assert sum(max(counts) for counts in steps if len(counts) == 2 and max(counts) > 1) == len(long)


def _step(engine, found):
    for out in engine.step():
        found[out.request_id] += out.token_ids
