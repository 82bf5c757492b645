"""Training on a stream: every row once a pass, the same order for the same seed, and going on where it stopped."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import load_tokenizer
from swiftlite.data import files
from swiftlite.data.mix import ALL, FIRST, Draws
from swiftlite.data.stream import mixed, shuffled
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.hub import local_path
from swiftlite.template import get_template
from swiftlite.train.rows import stream as module
from swiftlite.train.rows.data import beyond
from swiftlite.train.rows.stream import EncodedStream, Place, StreamLoader, row_stream


@pytest.fixture(scope='module')
def template():
    return get_template('tiny-chat', load_tokenizer(local_path('tiny-chat')))


def write(path, queries):
    path.write_text(''.join(json.dumps({'query': f'q{q}', 'response': 'r'}) + '\n' for q in queries))
    return str(path)


def args_of(*dataset, **flags):
    settings = {'streaming': True, 'max_steps': 5, 'shuffle_buffer_size': 8, 'model_type': 'tiny-chat'}
    return SftArgs(dataset=list(dataset), **{**settings, **flags})


def take(stream, count):
    rows = iter(stream)
    found = []
    for _ in range(count):
        (ids, _), stream.taken = next(rows)
        query = re.search(r'user\nq(\d+)<.im_end.>\n<.im_start.>', stream.template.tokenizer.decode(ids))
        found.append(int(query[1]) if query else tuple(ids))
    return found


def test_every_row_once_a_pass(tmp_path, template):
    file = write(tmp_path / 'a.jsonl', range(30))
    found = take(EncodedStream(args_of(file), template), 90)
    passes = [found[i : i + 30] for i in (0, 30, 60)]
    assert [sorted(one) for one in passes] == [list(range(30))] * 3
    assert passes[0] != passes[1] != passes[2] and passes[0] != sorted(passes[0])
    assert found == take(EncodedStream(args_of(file), template), 90)
    assert found != take(EncodedStream(args_of(file, seed=1), template), 90)


def test_processes_share_the_rows(tmp_path, template, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '3')
    file = write(tmp_path / 'a.jsonl', range(30))
    shares = [take(EncodedStream(args_of(file), template, rank), 10) for rank in range(3)]
    assert sorted(q for share in shares for q in share) == list(range(30))


@pytest.mark.parametrize('before', [1, 7, 29, 30, 31, 65])
def test_it_goes_on_where_it_was(tmp_path, template, before):
    file = write(tmp_path / 'a.jsonl', range(20))
    with open(file, 'a') as stream:
        stream.write('{broken\n{"query": "no answer"}\n')
        stream.write(json.dumps({'text': 'user\nq99<|im_end|> ' * 30}) + '\n')
    flags = {'max_length': 60, 'truncation_strategy': 'split'}
    whole = take(EncodedStream(args_of(file, **flags), template), before + 50)
    first, second = EncodedStream(args_of(file, **flags), template), EncodedStream(args_of(file, **flags), template)
    start = take(first, before)
    first.save(tmp_path)
    second.restore(tmp_path)
    assert start + take(second, 50) == whole and second.taken.kept == before + 50


def test_other_processes_cannot_go_on(tmp_path, template, monkeypatch):
    file = write(tmp_path / 'a.jsonl', range(20))
    EncodedStream(args_of(file), template).save(tmp_path)
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UsageError, match='read its stream with 1 processes: go on with as many, not 2'):
        EncodedStream(args_of(file), template).restore(tmp_path)
    with pytest.raises(UsageError, match=r'has no stream-1\.json'):
        EncodedStream(args_of(file), template, 1).restore(tmp_path)


def test_bad_rows_are_counted_once(tmp_path, template):
    file = write(tmp_path / 'a.jsonl', range(5))
    with open(file, 'a') as stream:
        stream.write('{broken\n{"query": "no answer"}\n' + json.dumps({'query': 'word ' * 99, 'response': 'r'}) + '\n')
    stream = EncodedStream(args_of(file, max_length=60), template)
    take(stream, 17)
    lines = stream.lines()
    assert lines[0] == 'training data: 17 rows taken from the stream, in pass 4' and len(lines) == 4
    assert all(line.startswith('  dropped 1 x ') for line in lines[1:])
    (tmp_path / 'c.jsonl').write_text('{"query": "a", "response": ""}\n{"query": "b", "response": "r"}\n')
    stream = EncodedStream(args_of(str(tmp_path / 'c.jsonl')), template)
    take(stream, 6)
    assert stream.lines()[1:] == [
        f'  kept 1 x an empty answer: its end alone is learnt (first: {tmp_path}/c.jsonl, line 1)'
    ]
    with pytest.raises(SwiftliteError, match=r'a\.jsonl, line 6: broken JSON \(--strict'):
        take(EncodedStream(args_of(file, strict=True), template), 6)
    (tmp_path / 'b.jsonl').write_text('{"query": "no answer"}\n')
    with pytest.raises(SwiftliteError, match='no rows are left to train on: 1 x'):
        take(EncodedStream(args_of(str(tmp_path / 'b.jsonl')), template), 1)


def test_a_file_is_never_read_whole(tmp_path, monkeypatch):
    """What is taken decides how much is read."""
    read, lines = [], files._jsonl
    monkeypatch.setattr(files, '_jsonl', lambda *a: (read.append(1) or one for one in lines(*a)))
    stream = row_stream(args_of(write(tmp_path / 'a.jsonl', range(5000))))
    raw = stream.raw(0)
    for _ in range(10):
        next(raw)
    assert len(read) == 8 + 10


def test_shuffled():
    found = list(shuffled(iter(range(1000)), 100, random.Random(3)))
    assert sorted(found) == list(range(1000)) and found != sorted(found)
    assert max(i - place for place, i in enumerate(found)) <= 100, 'nothing comes before it is read'
    assert list(shuffled(iter(range(50)), 1, random.Random(3))) == list(range(50))


def test_mixed():
    readers = [lambda: iter('a' * 10), lambda: iter('b' * 40)]
    found = list(mixed(readers, Draws([1, 1], 0), FIRST))
    assert found.count('a') == 10 or found.count('b') == 40
    found = list(mixed(readers, Draws([1, 1], 0), ALL))
    assert found.count('b') == 40 and found.count('a') > 20
    assert list(mixed([lambda: iter('a'), lambda: iter('')], Draws([1, 1], 0), ALL)) in ([], ['a'] * 1, ['a'] * 2)


def test_a_mix_of_streams(tmp_path, template):
    a, b = write(tmp_path / 'a.jsonl', range(100)), write(tmp_path / 'b.jsonl', range(1000, 1100))
    found = take(EncodedStream(args_of(a, b, interleave_prob=[9, 1]), template), 80)
    assert 1 < sum(q >= 1000 for q in found) < 25


def test_the_loader_notes_what_was_taken(tmp_path, template):
    stream = EncodedStream(args_of(write(tmp_path / 'a.jsonl', range(50))), template)
    batches = iter(StreamLoader(stream, 4, len))
    assert [next(batches) for _ in range(3)] == [4, 4, 4]
    assert stream.taken == Place(0, 12, 0, 12), 'not what waits in the queue'
    batches.close()


def test_an_error_of_the_thread_is_raised(tmp_path, template, monkeypatch):
    def broken(*_):
        raise SwiftliteError('no more')

    stream = EncodedStream(args_of(write(tmp_path / 'a.jsonl', range(50))), template)
    monkeypatch.setattr(module, 'encode_row', broken)
    monkeypatch.setattr(module, 'cut', broken)
    with pytest.raises(SwiftliteError, match='no rows are left to train on: 50 x no more'):
        next(iter(StreamLoader(stream, 4, len)))


def take_packs(stream, count):
    """The queries of the next packs."""
    packs, found = iter(stream), []
    for _ in range(count):
        pack, stream.taken = next(packs)
        assert sum(len(ids) for ids, _ in pack) <= stream.capacity
        found.append([stream.template.tokenizer.decode(ids).partition('user\nq')[2].split('<')[0] for ids, _ in pack])
    return found


def test_packs_of_a_stream(tmp_path, template, monkeypatch):
    """Every row once a pass, in packs that are filled well; another process reads on where one stopped."""
    monkeypatch.setattr(module, 'WINDOW', 4)
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    queries = [f'{i} {"word " * n}' for i, n in enumerate(lengths)]
    args = args_of(write(tmp_path / 'a.jsonl', queries), packing=True, max_length=200, packing_length=300)
    packs = take_packs(EncodedStream(args, template), 200)
    rows, ends = [q for pack in packs for q in pack], np.cumsum([len(pack) for pack in packs])
    assert sorted(rows[:100]) == sorted(rows[100:200]) == sorted(q for q in queries) and rows[:100] != rows[100:200]
    per_pass = int(np.searchsorted(ends, 100)) + 1
    tokens = EncodedStream(args, template)
    total = sum(len(next(rows)[0][0]) for rows in [tokens.pairs(tokens.taken)] for _ in range(100))
    assert per_pass <= total / 300 + 2 + total / (4 * 300)  # a window of four has one that is not full
    for before in (1, 3, 4, 5, per_pass - 1, per_pass, per_pass + 2):
        first, second = EncodedStream(args, template), EncodedStream(args, template)
        assert take_packs(first, before) == packs[:before]
        first.save(tmp_path)
        second.restore(tmp_path)
        assert take_packs(second, 30) == packs[before : before + 30]
        assert second.taken.kept + second.taken.packed == ends[before + 29]
    monkeypatch.setenv('WORLD_SIZE', '2')
    shares = [take_packs(EncodedStream(args, template, rank), per_pass) for rank in range(2)]
    assert len({q for share in shares for pack in share for q in pack}) == 100


def test_a_run_on_packs_of_a_stream_goes_on_bitwise(sft, data, capsys):
    flags = {'streaming': True, 'packing': True, 'max_length': 200, 'save_steps': 1, 'val_dataset': [str(data)],
             'save_total_limit': 9, 'batch_size': 1, 'gradient_accumulation_steps': 3}  # fmt: skip
    whole = sft(max_steps=4, **flags)
    said = capsys.readouterr().out
    assert 'packs of 200 tokens are made of the rows that are read ahead' in said
    assert 'held-out data: 22 rows in ' in said and 'rows taken from the stream, in pass 2' in said
    first = Path(whole['last_model_checkpoint']).parent / 'checkpoint-2'
    again = sft(max_steps=4, resume_from_checkpoint=str(first), **flags)
    assert all((tensor == weights(again)[name]).all() for name, tensor in weights(whole).items())


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ({'max_steps': -1}, 'needs --max_steps'),
        ({'group_by_length': True}, 'exclude each other'),
        ({'dataset': ['a.jsonl#5']}, 'leave out the number'),
    ],
)
def test_flags_that_do_not_fit(flags, said):
    with pytest.raises(UsageError, match=said):
        SftArgs(**{'dataset': ['a.jsonl'], 'streaming': True, 'max_steps': 3, **flags})


def test_positions_that_a_stream_may_leave(template, tmp_path):
    file = write(tmp_path / 'a.jsonl', range(5))
    for most, said in ((50, None), (51, 'note: --max_length 51 rows may be longer than the 50 positions'),
                       (-1, 'note: without --max_length rows may be longer')):  # fmt: skip
        args = args_of(file, max_length=most)
        found = beyond(EncodedStream(args, template), args, 50)
        assert found is None if said is None else found.startswith(said)


def test_nothing_is_held_out():
    assert args_of('a.jsonl').dataset_test_ratio == 0


def weights(summary):
    return load_file(Path(summary['last_model_checkpoint']) / 'adapter_model.safetensors')


def test_a_stopped_run_goes_on_bitwise(sft, data, capsys):
    """Weights and losses of a run that was interrupted are those of one that was not."""
    flags = {'streaming': True, 'save_steps': 2, 'val_dataset': [str(data)], 'eval_steps': 2, 'save_total_limit': 9}
    whole = sft(max_steps=6, **flags)
    assert 'training data: 48 rows taken from the stream, in pass 3' in capsys.readouterr().out
    first = Path(whole['last_model_checkpoint']).parent / 'checkpoint-4'
    again = sft(max_steps=6, resume_from_checkpoint=str(first), **flags)
    assert all((tensor == weights(again)[name]).all() for name, tensor in weights(whole).items())
    logs = [
        [
            json.loads(line).get('loss')
            for line in Path(run['last_model_checkpoint'], '../logging.jsonl').read_text().splitlines()
        ][-3:]
        for run in (whole, again)
    ]
    assert whole['best_metric'] == again['best_metric'] and logs[0] == logs[1]


def test_rows_of_a_stream_are_shown(sft, capsys):
    assert sft(streaming=True, max_steps=1, dump_prompt=2) == {'rows_shown': 2}
    assert 'What is the capital of Zubria?' in capsys.readouterr().out
