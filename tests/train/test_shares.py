"""Which rows each process gets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.train.scale.shares import Shares


@settings(max_examples=60)
@given(st.integers(1, 100), st.integers(1, 5), st.integers(1, 4))
def test_every_row_is_used_once_and_a_batch_is_the_same_rows(rows, size, world):
    shares = [list(Shares(range(rows), size, rank, world)) for rank in range(world)]
    together = size * world
    assert {len(own) for own in shares} == {len(Shares(range(rows), size, 0, world))} == {-(-rows // together)}
    for index, parts in enumerate(zip(*shares, strict=True)):
        assert (
            sorted(row for part in parts for row in part)
            == list(range(rows))[index * together : (index + 1) * together]
        )
        assert max(map(len, parts)) <= size and max(map(len, parts)) - min(map(len, parts)) <= 1 + (world > 1)


def test_processes_get_about_as_many_tokens():
    lengths = [1000, 900, 500, 450, 300, 200, 100, 60]
    first, second = (sum(lengths[i] for i in next(iter(Shares(range(8), 4, rank, 2)))) for rank in (0, 1))
    assert abs(first - second) < 0.04 * (first + second)
