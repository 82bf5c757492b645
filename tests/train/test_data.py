"""The data of a run: what is kept of it for the next, repeated and mixed, and what happens where rows are bad."""

import fcntl
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import load_tokenizer
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.hub import local_path
from swiftlite.template import IGNORE, get_template
from swiftlite.train.rows import data as module
from swiftlite.train.rows.data import training_data
from swiftlite.train.rows.encode import EncodeOptions, cut

BASE = local_path('tiny-chat')


@pytest.fixture(scope='module')
def template():
    return get_template('tiny-chat', load_tokenizer(BASE))


def write(path, queries, response='yes'):
    rows = (json.dumps({'query': str(q), 'response': response}, ensure_ascii=False) + '\n' for q in queries)
    path.write_text(''.join(rows), encoding='utf-8')
    return str(path)


@pytest.fixture
def prepare(tmp_path, template, capsys):
    """The data of a run with these flags: (queries in order, what was printed); its cache is a folder of the test."""

    def run(*dataset, template=template, base=BASE, **flags):
        settings = {'dataset_test_ratio': 0.0, 'data_cache': str(tmp_path / 'cache'), 'model_type': 'tiny-chat'}
        args = SftArgs(dataset=list(dataset), **{**settings, **flags})
        capsys.readouterr()
        rows, held = training_data(args, template, base)
        run.rows, run.held = rows, held
        return [query(template, rows[i][0]) for i in range(len(rows))], capsys.readouterr().out

    return run


def query(template, ids):
    return template.tokenizer.decode(ids).rpartition('user\n')[2].partition('<|im_end|>')[0]


@pytest.fixture
def encodings(monkeypatch):
    """Counts how often data is encoded."""
    made, encode = [], module._encoded
    monkeypatch.setattr(module, '_encoded', lambda *a: made.append(1) or encode(*a))
    return made


def test_a_second_run_reads_what_the_first_encoded(prepare, tmp_path, encodings):
    file = write(tmp_path / 'a.jsonl', range(20))
    found, said = prepare(file, dataset_test_ratio=0.2)
    assert 'encoded by an earlier run' not in said and 'training data: 16 rows kept' in said
    ids, held = prepare.rows.input_ids.copy(), prepare.held.labels.copy()
    again, more = prepare(file, dataset_test_ratio=0.2)
    assert again == found and more.startswith(said) and 'encoded by an earlier run: ' in more
    assert (prepare.rows.input_ids == ids).all() and (prepare.held.labels == held).all()
    assert isinstance(prepare.rows.input_ids, np.memmap) and len(encodings) == 1


def test_everything_that_tokens_depend_on_is_in_the_key(prepare, tmp_path, encodings, template):
    file = write(tmp_path / 'a.jsonl', range(20))
    base = tmp_path / 'base'
    base.mkdir()
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (base / name).write_bytes((module.Path(BASE) / name).read_bytes())
    other = get_template('tiny-chat', template.tokenizer, default_system='Be brief.')
    flags = [{}, {'max_length': 100}, {'truncation_strategy': 'left'}, {'loss_scale': 'all'}, {'dataset_seed': 1},
             {'dataset_test_ratio': 0.5}, {'val_dataset': [file]}, {'strict': True}]  # fmt: skip
    for number, given in enumerate(flags, 1):
        prepare(file, base=str(base), **given)
        assert len(encodings) == number, given
    prepare(f'{file}#5', base=str(base))
    prepare(file, base=str(base), template=other)
    write(tmp_path / 'a.jsonl', range(1, 21))
    prepare(file, base=str(base))
    (base / 'tokenizer_config.json').write_text('{"other": 1}')
    prepare(file, base=str(base))
    (base / 'config.json').write_text('{"model_type": "qwen3"}')
    prepare(file, base=str(base))
    assert len(encodings) == len(flags) + 5
    prepare(file, base=str(base), output_dir='elsewhere', max_steps=3, interleave_prob=[1])
    assert len(encodings) == len(flags) + 5, 'nothing that tokens depend on'


@pytest.mark.parametrize('damage', ['cut', 'changed', 'gone', 'entry'])
def test_a_damaged_folder_is_made_anew(prepare, tmp_path, encodings, damage):
    file = write(tmp_path / 'a.jsonl', range(20))
    found, _ = prepare(file)
    ids = next((tmp_path / 'cache').glob('*/training/input_ids.npy'))
    whole = ids.read_bytes()
    match damage:
        case 'cut':
            ids.write_bytes(whole[:-8])
        case 'changed':
            ids.write_bytes(whole[:-8] + bytes(8))
        case 'gone':
            ids.unlink()
        case _:
            ids.parent.with_name('entry.json').write_text('{"format": 1, "files": {}}')
    left = tmp_path / 'cache' / f'.encoding-{ids.parents[1].name}-killed'
    (left / 'training').mkdir(parents=True)
    again, said = prepare(file)
    assert again == found and 'earlier run' not in said and len(encodings) == 2 and not left.exists()
    assert ids.read_bytes() == whole
    prepare(file)
    assert len(encodings) == 2


PROGRAM = """
import sys
from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import load_tokenizer
from swiftlite.template import get_template
from swiftlite.train.rows import data
base, file, cache, log = sys.argv[1:]
encode = data._encoded
def logged(*a):
    open(log, 'a').write('x')
    return encode(*a)
data._encoded = logged
args = SftArgs(dataset=[file], data_cache=cache, model_type='tiny-chat')
rows, _ = data.training_data(args, get_template('tiny-chat', load_tokenizer(base)), base)
print(int(rows.input_ids.sum()))
"""


def test_processes_that_come_at_once_share_one_encoding(tmp_path):
    file = write(tmp_path / 'a.jsonl', range(300))
    words = [sys.executable, '-c', PROGRAM, BASE, file, str(tmp_path / 'cache'), str(tmp_path / 'log')]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {run.communicate()[0].splitlines()[-1] for run in runs}
    assert all(run.returncode == 0 for run in runs) and len(sums) == 1
    assert (tmp_path / 'log').read_text() == 'x'
    assert len([path for path in (tmp_path / 'cache').iterdir() if path.is_dir()]) == 1


def age(folder, days):
    """As if it had last been used so many days ago."""
    os.utime(folder, (time.time() - days * 86400,) * 2)


def test_what_was_used_longest_ago_goes_first(prepare, tmp_path):
    """Not what is being made, was used a moment ago, or is read by others; what killed processes left goes too."""
    cache = tmp_path / 'cache'

    def entries():
        return {path.name for path in cache.iterdir() if path.is_dir()}

    def add(count, **flags):
        before = entries() if cache.is_dir() else set()
        said = prepare(write(tmp_path / f'{count}.jsonl', range(count)), **flags)[1]
        return cache / (entries() - before).pop(), said

    old, recent, locked = (add(count)[0] for count in (10, 11, 12))
    size = sum(file.stat().st_size for file in old.rglob('*'))
    rows = prepare(str(tmp_path / '10.jsonl')) and prepare.rows
    age(old, 3), age(recent, 2), age(locked, 4)
    left = cache / '.encoding-0123-killed'
    left.mkdir()
    age(left, 2)
    with (cache / f'.{locked.name}.lock').open('a') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        new, said = add(13, data_cache_limit=3.5 * size / 2**30)
    assert entries() == {recent.name, locked.name, new.name}
    assert f'removed, to keep within --data_cache_limit {3.5 * size / 2**30:g}: {old}' in said
    assert len(rows) == 10 and (rows.input_ids >= 0).all()  # mapped still
    newest, _ = add(14, data_cache_limit=1e-9)
    assert entries() == {new.name, newest.name}  # used within the last hour
    age(new, 1)
    add(15, data_cache_limit=0)
    assert len(entries()) == 3


def test_what_is_not_of_the_cache_stays(prepare, tmp_path):
    """--data_cache may name a folder that holds other things."""
    other = tmp_path / 'cache' / 'mine'
    other.mkdir(parents=True)
    (other / 'entry.json').write_text('{}')
    age(other, 9)
    prepare(write(tmp_path / 'a.jsonl', range(5)), data_cache_limit=1e-9)
    assert (other / 'entry.json').is_file()


def test_no_cache(prepare, tmp_path, encodings):
    file = write(tmp_path / 'a.jsonl', range(5))
    for _ in range(2):
        prepare(file, data_cache='none')
    assert len(encodings) == 2 and not (tmp_path / 'cache').exists()
    (tmp_path / 'taken').write_text('')
    found, said = prepare(file, data_cache=str(tmp_path / 'taken' / 'x'))
    assert len(found) == 5 and 'the encoded data is not kept' in said


def test_repeated_rows_are_encoded_once(prepare, tmp_path):
    file = write(tmp_path / 'a.jsonl', range(10))
    with open(file, 'a') as stream:
        stream.write('{broken\n')
    found, said = prepare(f'{file}#25')
    assert len(found) == 25 and {found.count(str(i)) for i in range(10)} == {2, 3}
    assert 'training data: 10 rows kept, 1 dropped' in said and '25 rows a pass' in said
    assert prepare.rows.input_ids.size < 25 * prepare.rows.lengths.min()


def test_a_mix_by_weights(prepare, tmp_path):
    a, b = write(tmp_path / 'a.jsonl', range(100)), write(tmp_path / 'b.jsonl', range(1000, 1100))
    found, said = prepare(a, b, interleave_prob=[3, 1])
    few = [row for row in found if int(row) >= 1000]
    assert sorted(found[i] for i in range(len(found)) if int(found[i]) < 1000) == sorted(map(str, range(100)))
    assert 15 < len(few) < 60 and len(set(few)) == len(few) and f'{len(found)} rows a pass' in said
    assert prepare(a, b, interleave_prob=[3, 1])[0] == found
    whole, _ = prepare(a, b, interleave_prob=[3, 1], stopping_strategy='all_exhausted')
    assert {row for row in whole if int(row) >= 1000} == set(map(str, range(1000, 1100)))
    (tmp_path / 'c.jsonl').write_text('{"query": "x"}\n')
    with pytest.raises(UsageError, match=r"nothing is left of '.*c\.jsonl' to draw from"):
        prepare(a, str(tmp_path / 'c.jsonl'), interleave_prob=[1, 1])


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ({'interleave_prob': [1.0]}, 'has 1 weights for 2 values'),
        ({'interleave_prob': [1.0, 0.0]}, 'weights above 0'),
        ({'interleave_prob': [1.0, -1.0]}, 'at least 0'),
        ({'stopping_strategy': 'first_exhausted'}, 'give the weights'),
        ({'stopping_strategy': 'concat', 'interleave_prob': [1.0, 1.0]}, 'give one'),
        ({'loss_scale': 'react'}, 'a token is learned or it is not'),
        ({'loss_scale': 'last-round'}, "did you mean 'last_round'"),
        ({'mask_history': True, 'train_on_prompt': True}, 'give one'),
        ({'data_cache': 'none', 'data_cache_limit': 3}, 'is about the folder of --data_cache, which is none'),
        ({'truncation_strategy': 'middle'}, 'delete, left, right, split'),
    ],
)
def test_flags_that_do_not_fit(flags, said):
    with pytest.raises(UsageError) as error:
        SftArgs(dataset=['a.jsonl', 'b.jsonl'], **flags)
    assert said in str(error.value) and '\n' not in str(error.value)


def test_names_of_llama_factory():
    args = SftArgs(dataset=['a', 'b'], mask_history=True, interleave_prob=[1, 2], stopping_strategy='interleave_over')
    assert (args.loss_scale, args.stopping_strategy) == ('last_round', 'all_exhausted')
    assert SftArgs(dataset=['a'], train_on_prompt=True).loss_scale == 'all'
    assert (
        SftArgs(dataset=['a'], loss_scale='ignore_empty_think+last_round').loss_scale == 'last_round+ignore_empty_think'
    )


ROW = np.arange(10, dtype=np.int32), np.array([IGNORE] * 6 + [6, 7, 8, 9], dtype=np.int32)


@pytest.mark.parametrize(
    ('strategy', 'text', 'kept'),
    [
        ('delete', False, []),
        ('left', False, [range(6, 10)]),
        ('right', False, [range(4)]),
        ('split', False, []),
        ('split', True, [range(4), range(4, 8), range(8, 10)]),
    ],
)
def test_cut(strategy, text, kept):
    found = cut(*ROW, EncodeOptions(4, strategy), text)
    assert [ids.tolist() for ids, _ in found] == [list(part) for part in kept]
    assert all((labels == ROW[1][ids]).all() for ids, labels in found)
    assert len(cut(*ROW, EncodeOptions(10, strategy), text)) == 1


def test_nothing_learned_is_left_silently(prepare, tmp_path):
    """Cut on the right, a long question leaves no answer: the row is counted."""
    file = write(tmp_path / 'a.jsonl', ['word ' * 100, 'short'])
    found, said = prepare(file, max_length=40, truncation_strategy='right')
    assert found == ['short']
    assert f'1 x no token to learn from within --max_length 40 (first: {file}, line 1)' in said
    assert '1 rows kept, 1 dropped, 0 truncated' in said and 'warning: 50% of the rows were dropped' in said
    long = write(tmp_path / 'b.jsonl', ['short'], response='word ' * 100)
    prepare(long, max_length=60, truncation_strategy='right')
    assert prepare.rows.lengths.tolist() == [60]


def test_text_is_split_into_rows_without_a_rest(prepare, tmp_path):
    (tmp_path / 'a.jsonl').write_text(json.dumps({'text': 'one two three four five ' * 30}) + '\n')
    _, said = prepare(str(tmp_path / 'a.jsonl'), max_length=50, truncation_strategy='split')
    tokens = prepare.rows.input_ids.tolist()
    whole = prepare(str(tmp_path / 'a.jsonl'))[0] and prepare.rows.input_ids.tolist()
    assert tokens == whole and (prepare.rows.labels == prepare.rows.input_ids).all()
    assert '1 truncated' in said


def defective(path, count):
    """Rows of which each kind of 10 is as often as the others."""
    good = json.dumps({'query': 'a', 'response': 'b'})
    kinds = [
        good.encode(),
        b'{broken',
        b'{"query": "\xff\xfe", "response": "b"}',
        b'[1, 2]',
        b'{"query": "a"}',
        b'{"querry": "a", "response": "b"}',
        json.dumps({'query': 'word ' * 60, 'response': 'b'}).encode(),
        json.dumps({'messages': [{'role': 'robot', 'content': 'x'}]}).encode(),
        b'{"query": "\\ud800", "response": "b"}',
        json.dumps({'query': 'a', 'response': 'b', 'images': ['x.png']}).encode(),
    ]
    path.write_bytes(b'\n'.join(kinds * (count // len(kinds))) + b'\n')
    return len(kinds)


def test_every_defect_is_counted(prepare, tmp_path, monkeypatch):
    """Several processes, and the first line of each reason."""
    monkeypatch.setattr(module, 'MANY', 100)
    monkeypatch.setattr(module, 'usable_workers', lambda most: 3)
    file = tmp_path / 'bad.jsonl'
    kinds = defective(file, 5000)
    found, said = prepare(str(file), max_length=50)
    each = 5000 // kinds
    assert len(found) == each and f'{each} rows kept, {9 * each} dropped, 0 truncated' in said
    dropped = [line for line in said.splitlines() if line.startswith('  dropped ')]
    assert len(dropped) == 9 and all(line.startswith(f'  dropped {each} x ') for line in dropped)
    assert sorted(int(line.rpartition('line ')[2].rstrip(')')) for line in dropped) == list(range(2, 11))
    for line, reason in (
        (2, 'broken JSON'),
        (3, 'not UTF-8 text'),
        (7, 'longer than --max_length 50'),
        (9, 'surrogate'),
    ):
        assert any(reason in row and row.endswith(f'line {line})') for row in dropped), reason


def test_empty_answers_are_kept_and_counted(prepare, tmp_path, monkeypatch):
    """As ms-swift keeps them; not those that call a tool, think or are not learnt. An earlier run's counts are kept."""
    call = {'function': {'name': 'f', 'arguments': {}}}
    answers: list[dict] = [
        {'content': 'yes'},
        {'content': ''},
        {'content': ' \n'},
        {'content': '', 'tool_calls': [call]},
        {'content': '', 'loss': False},
    ]
    rows = [
        {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b', **answer},
                      {'role': 'user', 'content': 'c'}, {'role': 'assistant', 'content': 'd'}]}
        for answer in answers
    ]  # fmt: skip
    file = tmp_path / 'rows.jsonl'
    file.write_text('\n'.join(map(json.dumps, rows)))
    for strict in (False, True, True):
        _, said = prepare(str(file), strict=strict)
        assert '0 dropped' in said
        assert f'  kept 2 x an empty answer: its end alone is learnt (first: {file}, line 2)' in said
    assert 'encoded by an earlier run' in said
    assert 'an empty answer' not in prepare(str(file), loss_scale='last_round')[1]


@pytest.mark.parametrize(('line', 'reason'), [(2, 'broken JSON'), (5, "'query' but no 'response'"), (9, 'surrogate')])
def test_strict_names_the_first_bad_row(prepare, tmp_path, monkeypatch, line, reason):
    monkeypatch.setattr(module, 'MANY', 1)
    monkeypatch.setattr(module, 'usable_workers', lambda most: 2)
    file = tmp_path / 'bad.jsonl'
    defective(file, 10)
    lines = file.read_bytes().splitlines()
    file.write_bytes(b'\n'.join([lines[0]] * (line - 1) + lines[line - 1 : line] + [lines[0]] * 3) + b'\n')
    with pytest.raises(SwiftliteError, match=rf'bad\.jsonl, line {line}: .*{reason}.*--strict true stops'):
        prepare(str(file), strict=True)
    prepare(str(file))


def test_a_long_row_is_not_bad(prepare, tmp_path):
    """--truncation_strategy says what becomes of it, --strict or not."""
    file = write(tmp_path / 'a.jsonl', ['word ' * 100, 'short'])
    assert prepare(file, max_length=40, strict=True)[0] == ['short']


def test_rows_of_which_nothing_is_learned_are_not_shown(tmp_path, template, capsys):
    from swiftlite.train.rows.dump import dump_prompt

    file = write(tmp_path / 'a.jsonl', ['word ' * 200, 'Which tea?'])
    flags = {'model_type': 'tiny-chat', 'dataset_test_ratio': 0, 'max_length': 60, 'truncation_strategy': 'right'}
    assert dump_prompt(SftArgs(dataset=[file], dump_prompt=5, **flags), template, template.tokenizer) == 1
    out = capsys.readouterr().out
    assert 'line 2: template' in out and 'line 1: template' not in out
    assert f'dropped 1 x no token to learn from (first: {file}, line 1)' in out


def test_nothing_to_show(tmp_path, template):
    from swiftlite.train.rows.dump import dump_prompt

    (tmp_path / 'empty.jsonl').write_text('')
    for name, why in (
        (tmp_path / 'empty.jsonl', 'the data is empty'),
        (write(tmp_path / 'a.jsonl', ['x']), 'all were dropped'),
    ):
        args = SftArgs(dataset=[str(name)], model_type='tiny-chat', dataset_test_ratio=0, dump_prompt=2, max_length=4)
        with pytest.raises(SwiftliteError, match=f'no rows are left to show: {why}'):
            dump_prompt(args, template, template.tokenizer)


def test_rows_are_shown(tmp_path, template, capsys, monkeypatch):
    from swiftlite.train.rows.dump import dump_prompt

    file = write(tmp_path / 'a.jsonl', ['word ' * 200, 'Which tea?', 'And coffee?', 'third'], response='Green 你好.')
    args = SftArgs(dataset=[file], model_type='tiny-chat', dataset_test_ratio=0, dump_prompt=2, max_length=100)
    assert dump_prompt(args, template, template.tokenizer) == 2
    out = capsys.readouterr().out
    row = template.encode_training(
        [{'role': 'user', 'content': 'Which tea?'}, {'role': 'assistant', 'content': 'Green 你好.'}]
    )
    learned = sum(label != IGNORE for label in row.labels)
    assert f'{file}, line 2: template tiny-chat, {len(row.input_ids)} tokens, {learned} of them learned' in out
    assert 'Which tea?<|im_end|>\n<|im_start|>assistant\n[Green 你好.<|im_end|>]' in out
    first = next(i for i, label in enumerate(row.labels) if label != IGNORE)
    before, said = row.input_ids[:first], row.input_ids[first : first + learned]
    assert f'ids: {" ".join(map(str, before))} [{" ".join(map(str, said))}]' in out
    assert 'And coffee?' in out and 'third' not in out and '\x1b' not in out
    assert 'dropped 1 x longer than --max_length 100 (first: ' in out
    monkeypatch.setattr(
        sys, 'stdout', SimpleNamespace(**{n: getattr(sys.stdout, n) for n in ('write', 'flush')}, isatty=lambda: True)
    )
    dump_prompt(args, template, template.tokenizer)
    assert '\x1b[1;32mGreen 你好.<|im_end|>\x1b[0m' in capsys.readouterr().out
    monkeypatch.setenv('NO_COLOR', '1')
    dump_prompt(args, template, template.tokenizer)
    assert '\x1b' not in capsys.readouterr().out
    with pytest.raises(SwiftliteError, match='no rows are left to show'):
        dump_prompt(
            SftArgs(dataset=[file], model_type='tiny-chat', dump_prompt=1, max_length=3), template, template.tokenizer
        )
