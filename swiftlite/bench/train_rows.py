"""Rows to train on, without any data: seeded token ids, of one length or with those of conversations."""

from __future__ import annotations

from itertools import islice
from random import Random

import numpy as np

from ..train.rows.encoded import EncodedRows
from .workload import FIRST_ID, chat


def random_rows(count: int, length: int | None, limit: int, vocab_size: int, seed: int) -> EncodedRows:
    """`count` rows of `length` tokens that all carry the loss; None: questions and replies as in `workload.chat`,
    cut to `limit` tokens together.

    The n-th token id is drawn in proportion to 1 / (n + 10), about as words are in texts: there is something to learn.
    """
    rng = np.random.default_rng(seed)
    weights = np.cumsum(1 / (np.arange(vocab_size - FIRST_ID) + 10))
    if length is not None:
        sizes = [(0, length)] * count
    else:
        sizes = [(min(len(r.prompt), limit // 2), r.output_len) for r in islice(chat(Random(seed), vocab_size), count)]
    rows = []
    for asked, answered in sizes:
        answered = min(answered, limit - asked)
        ids = np.searchsorted(weights, rng.random(asked + answered) * weights[-1]) + FIRST_ID
        rows.append((ids.tolist(), [-100] * asked + ids[asked:].tolist()))
    return EncodedRows.of(rows)
