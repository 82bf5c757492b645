"""What becomes of each row, how batches are cut, and the order of rows."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.data.rows import Drops, Row
from swiftlite.errors import SwiftliteError
from swiftlite.train.rows.collate import BatchSampler, Collator
from swiftlite.train.rows.encode import EncodeOptions, encode_rows
from swiftlite.train.rows.encoded import EncodedRows


class Template:
    """Ids = the code points; the second half is trained; '!' cannot be encoded."""

    def encode_training(self, messages, *, tools=None, loss_scale='default'):
        text = messages[0]['content']
        if '!' in text:
            raise SwiftliteError('no exclamation marks')
        ids = [ord(c) for c in text]
        return SimpleNamespace(input_ids=ids, labels=[-100] * (len(ids) // 2) + ids[len(ids) // 2 :])


def rows(*texts):
    return [Row([{'role': 'user', 'content': text}], None, f'line {i}') for i, text in enumerate(texts, 1)]


def test_tokens_that_carry_the_loss_are_those_that_are_trained():
    """Of a text every token is learned but the first, which nothing predicts; so of each piece of one that is split."""

    class Text:
        def encode_training(self, messages, *, tools=None, loss_scale='default'):
            ids = [ord(c) for c in messages[0]['content']]
            return SimpleNamespace(input_ids=ids, labels=ids)

    texts = [Row([{'role': 'text', 'content': text}], None, 'x') for text in ('abcd', 'ab' * 5)]
    data, _, report = encode_rows(texts, Text(), EncodeOptions(4, 'split'), Drops())
    passes = Collator(0)([data[i] for i in range(len(data))])['passes']
    assert report.trained_tokens == sum(len(part['targets']) for part in passes) == 3 + 3 + 3 + 1


def test_counts():
    drops = Drops()
    data, _, report = encode_rows(rows('abcd', 'a!', 'abcdefghij', 'x!', 'xy'), Template(), EncodeOptions(6), drops)
    assert (report.kept, report.truncated, drops.total) == (2, 0, 3)
    assert drops.reasons == {'no exclamation marks': (2, 'line 2'), 'longer than --max_length 6': (1, 'line 3')}
    assert report.trained_tokens == 3
    lines = report.lines('data')
    assert lines[0] == 'data: 2 rows kept, 3 dropped, 0 truncated'
    assert lines[1] == '  dropped 2 x no exclamation marks (first: line 2)'
    assert lines[3] == '  warning: 60% of the rows were dropped'
    assert 'min 2, p50' in lines[4] and '(10 before truncation)' in lines[4]
    assert [data[0][0].tolist(), data[1][1].tolist()] == [[97, 98, 99, 100], [-100, 121]]


def test_truncation_keeps_the_end():
    data, _, report = encode_rows(rows('abcdefghij'), Template(), EncodeOptions(3, 'left'), Drops())
    assert report.truncated == 1
    assert data[0][0].tolist() == [ord(c) for c in 'hij']


def test_a_row_without_a_predictable_label_is_dropped():
    drops = Drops()
    encode_rows(rows('a'), Template(), EncodeOptions(), drops)  # its only label has no token before it
    assert drops.reasons == {'no token to learn from': (1, 'line 1')}


@pytest.mark.parametrize('workers', [2, 3, 20])
def test_several_processes_give_the_same(workers):
    """Order, counts and where something went wrong first; every row is reported as done."""
    texts = rows(*(f'{"!" if i % 7 == 0 else ""}{"ab" * (i % 9 + 1)}' for i in range(1000)))
    alone, together, done = Drops(), Drops(), []
    wanted, places, first = encode_rows(texts, Template(), EncodeOptions(12), alone)
    found, at, second = encode_rows(texts, Template(), EncodeOptions(12), together, done.append, workers)
    assert (found.input_ids == wanted.input_ids).all() and (found.starts == wanted.starts).all()
    assert (at == places).all() and len(at) == len(found)
    assert first.lines('x') == second.lines('x')
    assert sum(done) == 1000


def test_a_process_that_dies_is_an_error():
    class Broken:
        def encode_training(self, messages, *, tools=None, loss_scale='default'):
            os._exit(3)

    with pytest.raises(RuntimeError, match='ended without a result'):
        encode_rows(rows(*'abcd'), Broken(), EncodeOptions(), Drops(), workers=2)


def batch_of(*lengths, **options):
    """A batch of rows 1, 2, ... n whose tokens after the first carry the loss."""
    data = EncodedRows.of([(range(1, n + 1), [-100, *range(2, n + 1)]) for n in lengths])
    return Collator(0, **options)([data[i] for i in range(len(data))])


def test_collator_marks_the_positions_that_predict_labels():
    data = EncodedRows.of([([8, 9], [-100, 9]), ([5, 6, 7], [-100, 6, 7])])
    batch = Collator(0)([data[0], data[1]])
    assert batch['tokens'] == 5
    (part,) = batch['passes']
    assert part['input_ids'].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert part['positions'].tolist() == [0, 1, 3]
    assert part['targets'].tolist() == [6, 7, 9]


def test_passes_waste_at_most_the_overhead_and_keep_to_the_budget():
    shapes = [tuple(part['input_ids'].shape) for part in batch_of(10, 3, 9, 10, 2, 4, overhead=5)['passes']]
    assert shapes == [(3, 10), (3, 4)]
    shapes = [tuple(part['input_ids'].shape) for part in batch_of(10, 10, 10, 30, budget=20)['passes']]
    assert shapes == [(1, 30), (2, 10), (1, 10)]
    assert len(batch_of(100, 2, 2, 2)['passes']) == 1


@settings(max_examples=50)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=40), st.integers(0, 100), st.none() | st.integers(1, 200))
def test_every_token_is_in_one_pass(lengths, overhead, budget):
    batch = batch_of(*lengths, overhead=overhead, budget=budget)
    assert sum(int((part['input_ids'] > 0).sum()) for part in batch['passes']) == batch['tokens'] == sum(lengths)
    assert sum(len(part['targets']) for part in batch['passes']) == sum(lengths) - len(lengths)
    for part in batch['passes']:
        assert torch.equal(part['input_ids'].reshape(-1)[part['positions'] + 1], part['targets'])
        assert budget is None or part['input_ids'].shape[0] == 1 or part['input_ids'].numel() <= budget


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=300),
    st.integers(1, 20),
    st.integers(0, 3),
    st.sampled_from([1, 4]),
)
def test_sampler_visits_every_row_once(lengths, batch, epoch, together):
    order = list(BatchSampler(lengths, batch, 7, lambda: epoch, together))
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(BatchSampler(lengths, batch, 7, lambda: epoch, together))
    for start in range(0, len(order), batch):
        part = [lengths[i] for i in order[start : start + batch]]
        assert part == sorted(part, reverse=True)
    assert epoch > 0 or lengths[order[0]] == max(lengths)


def test_sampler_changes_with_the_epoch_and_the_seed():
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    orders = [list(BatchSampler(lengths, 10, seed, lambda e=e: e)) for e, seed in ((0, 7), (1, 7), (1, 8))]
    assert len({tuple(order) for order in orders}) == 3


def test_rows_drawn_together_leave_little_padding():
    lengths = np.random.default_rng(0).integers(1, 500, 2000)

    def padding(together):
        order = np.array(list(BatchSampler(lengths, 20, 7, lambda: 1, together)))
        found = lengths[order].reshape(-1, 20)
        return (found.max(axis=1) * 20).sum() / found.sum()

    assert padding(50) < 1.1 < 1.7 < padding(1)
    order = np.array(list(BatchSampler(lengths, 20, 7, lambda: 1, 50)))
    longest = lengths[order].reshape(-1, 20).max(axis=1)[:50]
    assert not (np.diff(longest) <= 0).all()  # long and short batches are mixed
