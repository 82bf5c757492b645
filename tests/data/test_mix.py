"""Mixing by weights: proportions, the end, and repetition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.data.mix import ALL, FIRST, Draws, interleaved, repeats


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.sampled_from([FIRST, ALL]), st.integers(0, 5))
def test_interleaved(sizes, strategy, seed):
    weights = [1 + i for i in range(len(sizes))]
    mix = interleaved(sizes, weights, strategy, seed)
    assert mix == interleaved(sizes, weights, strategy, seed)
    used = [[row for source, row in mix if source == i] for i in range(len(sizes))]
    for size, rows in zip(sizes, used, strict=True):
        for start in range(0, len(rows), size):  # no row twice before each came once
            assert len(set(rows[start : start + size])) == len(rows[start : start + size])
    full = [len(rows) >= size for size, rows in zip(sizes, used, strict=True)]
    source = mix[-1][0]
    if strategy == FIRST:
        assert full == [i == source for i in range(len(sizes))] and len(used[source]) == sizes[source]
    else:
        assert all(full) and len(used[source]) == sizes[source], 'it ends with the row that used up the last one'


def test_proportions():
    mix = interleaved([10**6, 10**6], [3, 1], FIRST, 0)[:100_000]
    assert np.mean([source == 0 for source, _ in mix]) == pytest.approx(0.75, abs=0.01)
    assert interleaved([9, 9], [3, 1], FIRST, 0) != interleaved([9, 9], [3, 1], FIRST, 1)


def test_draws_are_the_same_one_by_one_and_together():
    assert list(itertools.islice(Draws([2, 1, 1], 5), 50)) == Draws([2, 1, 1], 5).block(50).tolist()


def test_repeats():
    assert repeats(0, 5, 1) == []
    assert sorted(repeats(4, 4, 1)) == [0, 1, 2, 3]
    assert {repeats(4, 10, 1).count(i) for i in range(4)} == {2, 3}
