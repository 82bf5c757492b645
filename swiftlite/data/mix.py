"""Which rows of several sources make up a pass over the data, and how often."""

import random
from collections.abc import Sequence

import numpy as np

FIRST, ALL = 'first_exhausted', 'all_exhausted'
BLOCK = 1 << 16  # sources drawn at once


def repeats(rows: int, count: int, seed: int) -> list[int]:
    """`count` of `rows`: all as often as they fit, then a sample without repetition."""
    if not rows:
        return []
    whole, rest = divmod(count, rows)
    return list(range(rows)) * whole + random.Random(seed).sample(range(rows), rest)


class Draws:
    """Iterates over numbers of sources, drawn with probabilities in proportion to `weights`."""

    def __init__(self, weights: Sequence[float], seed: int):
        self._edges = np.cumsum(weights) / sum(weights)
        self._rng = np.random.default_rng([seed, len(weights)])

    def __iter__(self) -> 'Draws':
        return self

    def __next__(self) -> int:
        return int(self.block(1)[0])

    def block(self, count: int) -> np.ndarray:
        """The next `count` of them, int64."""
        return np.searchsorted(self._edges[:-1], self._rng.random(count), side='right')


def interleaved(sizes: Sequence[int], weights: Sequence[float], strategy: str, seed: int) -> list[tuple[int, int]]:
    """(source, row) of a mix in which every next row comes from source i with a probability of weights[i] / sum.

    FIRST ends with the last row of the source that is used up first; ALL when every source has been used up, where
    those that were used up before start again. The rows of a source come in a random order.
    """
    if not all(sizes):
        raise ValueError('a source without rows cannot be mixed')
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(size).tolist() for size in sizes]
    used, done = [0] * len(sizes), [False] * len(sizes)
    mix: list[tuple[int, int]] = []
    drawn = Draws(weights, seed)
    while True:
        for source in drawn.block(BLOCK).tolist():
            mix.append((source, orders[source][used[source] % sizes[source]]))
            used[source] += 1
            done[source] = used[source] >= sizes[source]
            if (any if strategy == FIRST else all)(done):
                return mix
