"""The held-out part of the data."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.args.infer import InferArgs
from swiftlite.data.rows import Part, Row, repeated
from swiftlite.data.split import held_out, read_split, split_parts
from swiftlite.errors import SwiftliteError


@pytest.mark.parametrize(
    ('count', 'ratio', 'expected'), [(100, 0.01, 1), (500, 0.01, 5), (1, 0.5, 0), (10, 0, 0), (3, 0.01, 1)]
)
def test_held_out(count, ratio, expected):
    train, test = held_out(range(count), ratio, 3)
    assert len(test) == expected
    assert sorted([*train, *test]) == list(range(count))
    assert held_out(range(count), ratio, 3) == (train, test)


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return str(path)


def test_the_same_arguments_hold_out_the_same_rows(tmp_path):
    data = write(tmp_path / 'train.jsonl', [{'query': f'q{i}', 'response': f'r{i}'} for i in range(60)])
    args = InferArgs(model_type='tiny-chat', dataset=[data], dataset_test_ratio=0.2, dataset_seed=3)
    split = read_split(args)
    assert ([len(part.rows) for part in split.parts], len(split.held_out)) == ([48], 12)
    assert read_split(args, answered=False).held_out == split.held_out
    assert read_split(replace(args, dataset_seed=4)).held_out != split.held_out


def test_rows_to_answer_need_no_answer(tmp_path):
    rows = [
        {'query': 'q'},
        {'instruction': 'i', 'input': 'n'},
        {'messages': [{'role': 'user', 'content': 'm'}]},
        {'query': 'q', 'response': 'r'},
        {'response': 'only'},
        {'responsee': 'x'},
    ]
    args = InferArgs(model_type='tiny-chat', val_dataset=[write(tmp_path / 'val.jsonl', rows)])
    split = read_split(args, answered=False)
    assert [row.messages[0]['content'] for row in split.held_out] == ['q', 'i\nn', 'm', 'q', 'only']
    assert [len(row.messages) for row in split.held_out] == [1, 1, 1, 2, 1] and split.held_out_drops.total == 1
    split = read_split(args)
    assert (len(split.held_out), split.held_out_drops.total) == (2, 4), 'training needs the answers'
    with pytest.raises(SwiftliteError, match=r"val\.jsonl, line 1: the row has 'query' but no 'response'"):
        read_split(args, strict=True)


def row(text):
    return Row([{'role': 'user', 'content': text}, {'role': 'assistant', 'content': 'r'}], None, 'f')


@given(
    parts=st.lists(
        st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 60)), min_size=1, max_size=3
    ),
    ratio=st.sampled_from([0, 0.01, 0.2, 0.9]),
    seed=st.integers(0, 5),
)
def test_no_held_out_row_is_trained_on(parts, ratio, seed):
    """Rows that come several times, in a file, by #N or in two data sets, are all on one side."""
    made = [Part([row(str(n)) for n in numbers], max(count, len(numbers))) for numbers, count in parts]
    parts, held = split_parts(made, ratio, seed)
    training = [one for part in parts for one in repeated(part, seed)]
    keys = [one.key for one in held]
    assert not set(keys) & {one.key for one in training}
    assert len(set(keys)) == len(keys)
    distinct = {one.key for part in made for one in part.rows}
    assert {one.key for one in training} | set(keys) == distinct
    assert len(held) == (min(max(1, round(len(distinct) * ratio)), len(distinct) - 1) if ratio else 0)
    if not held:
        assert len(training) == sum(part.count for part in made)
    assert (parts, held) == split_parts(made, ratio, seed)


def test_rows_above_the_size_of_a_file(tmp_path):
    data = write(tmp_path / 'a.jsonl', [{'query': f'q{i}', 'response': f'r{i}'} for i in range(10)])
    args = InferArgs(model_type='tiny-chat', dataset=[f'{data}#100'], dataset_test_ratio=0.2, dataset_seed=3)
    split = read_split(args)
    training = [one for part in split.parts for one in repeated(part, 3)]
    assert (len(training), len(split.held_out)) == (98, 2)
    assert not {one.key for one in training} & {one.key for one in split.held_out}
