"""Decoding sequences with a common prefix stand together in a step, and say the same as without."""

from types import SimpleNamespace

import pytest

from swiftlite.engine.shared_prefix import PrefixFinder
from tests.engine.runs import make_llm, random_prompts, run


def sequence(slot, blocks, total):
    return SimpleNamespace(slot=slot, blocks=blocks, total=total)


def test_the_prefix_that_saves_most_is_found():
    finder = PrefixFinder(16, 1)
    long = [sequence(i, [1, 2, 3, 10 + i], 60) for i in range(3)]
    short = [sequence(5 + i, [7, 20 + i], 30) for i in range(2)]
    found = finder.find([short[0], *long, short[1]], 1)
    assert found.slots == {0, 1, 2} and found.tokens == 48
    assert finder.find(short, 1).tokens == 16
    assert finder.find(short[:1], 1) is None
    assert PrefixFinder(16, 97).find(long, 1) is None  # 2 x 48 tokens saved


def test_the_newest_token_is_never_shared():
    whole = [sequence(i, [1, 2], 32) for i in range(2)]  # 31 tokens before the newest one
    assert PrefixFinder(16, 1).find(whole, 1).tokens == 16


def test_an_answer_holds_until_a_slot_changes_hands():
    finder = PrefixFinder(16, 1)
    rows = [sequence(i, [1, 2, 3 + i], 40) for i in range(2)]
    assert finder.find(rows, 1).tokens == 32
    rows[1].blocks = [1, 9, 9]
    assert finder.find(rows, 1).tokens == 32
    assert finder.find(rows, 2).tokens == 16


@pytest.mark.parametrize('lookahead', [0, 1])
def test_answers_are_the_same(base, lookahead):
    head, *tails = random_prompts(7, low=70, high=70)
    prompts = [head + tail[: 5 + i] for i, tail in enumerate(tails)]
    prompts.insert(2, random_prompts(1, seed=9, low=33, high=33)[0])
    llm = make_llm(base, lookahead=lookahead, max_model_len=128)
    alone = [run(llm, [p])[0] for p in prompts]
    plans = []
    submit = llm.engine.executor.submit
    llm.engine.executor.submit = lambda plan: plans.append(plan) or submit(plan)
    llm.engine.scheduler._planner._prefixes = PrefixFinder(llm.engine.config.block_size, 1)
    assert run(llm, prompts) == alone
    shared = [plan.shared for plan in plans if plan.shared[2]]
    assert shared and set(shared) == {(0, 6, 64)}
