"""The held-out part of the data."""

import pytest

from swiftlite.data.split import held_out


@pytest.mark.parametrize(
    ('count', 'ratio', 'expected'), [(100, 0.01, 1), (500, 0.01, 5), (1, 0.5, 0), (10, 0, 0), (3, 0.01, 1)]
)
def test_held_out(count, ratio, expected):
    train, test = held_out(range(count), ratio, 3)
    assert len(test) == expected
    assert sorted([*train, *test]) == list(range(count))
    assert held_out(range(count), ratio, 3) == (train, test)
