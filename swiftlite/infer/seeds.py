"""Random numbers of answers to rows."""

import random


def row_seed(seed: int, row: int) -> int:
    """The seed of the answer to a row, so that it is the same however many rows were answered before in this run."""
    return random.Random(f'{seed}/{row}').getrandbits(63)
