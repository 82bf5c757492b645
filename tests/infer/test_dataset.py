"""Answers to data sets: the rows, the file, and the same answers as one by one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from swiftlite.args.infer import InferArgs
from swiftlite.cli.parse import parse
from swiftlite.data.split import read_split
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.infer.results import ResultFile, row
from swiftlite.infer.run import run
from swiftlite.infer.session import Session, sampling
from swiftlite.infer.setup import prepare
from tests.tiny import EXACT, EXACT_FLAGS

SETTINGS = {'template_type': 'tiny-chat', 'max_new_tokens': 12, 'temperature': 0.0, **EXACT}


def write(path: Path, rows: list[dict]) -> str:
    path.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
    return str(path)


def results(folder: Path) -> list[dict]:
    (file,) = folder.glob('*.jsonl')
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{'query': f'question {i} ' * (i % 7 + 1), 'response': f'answer {i}'} for i in range(30)]
    rows += [
        {'query': 'no label'},
        {'query': 'again', 'response': 'yes', 'system': 'Be brief.', 'history': [['a', 'b'], ['c', 'd']]},
        {'messages': [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'hello'}]},
        {'messages': [{'role': 'user', 'content': '你好'}]},
        {'query': 'too long ' * 300, 'response': 'x'},
        {'nothing': 1},
    ]
    return write(tmp_path / 'val.jsonl', rows)


def test_rows_in_order_and_as_alone(
    checkpoint: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SETTINGS | {'val_dataset': [data], 'result_dir': str(tmp_path / 'out'), 'verbose': False}
    args = InferArgs(model_id_or_path=str(checkpoint), **options)
    assert run(args) == 0
    printed = capsys.readouterr().out
    assert '34 rows to answer, 2 dropped' in printed
    assert 'longer than the context' in printed and str(tmp_path / 'out') in printed and 'tokens/s' in printed
    found = results(tmp_path / 'out')
    assert [r['query'] for r in found][:2] == ['question 0 ', 'question 1 question 1 ']
    assert found[30] == {'query': 'no label', 'response': found[30]['response'], 'label': None, 'history': [],
                         'system': None}  # fmt: skip
    assert found[31]['history'] == [['a', 'b'], ['c', 'd']] and found[31]['system'] == 'Be brief.'
    assert found[32]['label'] == 'hello' and found[33]['label'] is None
    session = Session(prepare(args), args)
    for index in (0, 5, 31, 33):
        given = found[index]
        messages = [{'role': 'system', 'content': given['system']}] if given['system'] else []
        for query, response in given['history']:
            messages += [{'role': 'user', 'content': query}, {'role': 'assistant', 'content': response}]
        prompt = session.encode([*messages, {'role': 'user', 'content': given['query']}])
        assert ''.join(delta.text for _, delta in session.answer([prompt])) == given['response']
    session.close()


def test_held_out_rows_of_the_training_data(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """--load_dataset_config answers the rows that training held out, with the adapter."""
    rows = [{'query': f'question {i}', 'response': f'answer {i}'} for i in range(50)]
    saved = {
        'model_id_or_path': str(checkpoint),
        'template_type': 'tiny-chat',
        'dataset': [write(tmp_path / 'train.jsonl', rows)],
        'dataset_test_ratio': 0.1,
        'dataset_seed': 3,
        'seed': 7,
    }
    folder = tmp_path / 'checkpoint-1'
    folder.mkdir()
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / 'sft_args.json').write_text(json.dumps(saved))
    words = ['--ckpt_dir', str(folder), '--load_dataset_config', 'true', '--max_new_tokens', '4', '--temperature', '0']
    args = parse(InferArgs, [*words, *EXACT_FLAGS], 'infer')
    assert run(args) == 0
    found = results(folder / 'infer_result')
    held = [item.messages[0]['content'] for item in read_split(args).held_out]
    assert len(held) == 5 and [r['query'] for r in found] == held
    assert all(r['label'] == r['query'].replace('question', 'answer') for r in found)
    base = InferArgs(model_id_or_path=str(checkpoint), **SETTINGS)
    for options, same in ((args, True), (base, False)):
        session = Session(prepare(options), options)
        prompts = [session.encode([{'role': 'user', 'content': query}]) for query in held]
        texts = [''] * 5
        for index, delta in session.answer(prompts):
            texts[index] += delta.text
        session.close()
        assert ([r['response'] for r in found] == texts) is same


def test_a_run_that_was_cut_off_goes_on(checkpoint: Path, data: str, tmp_path: Path) -> None:
    """The rows that are there are kept, and the file is that of a run in one go, also where answers are drawn."""
    options = SETTINGS | {'val_dataset': [data], 'temperature': 1.0, 'verbose': False}
    for name in ('whole', 'cut'):
        args = InferArgs(model_id_or_path=str(checkpoint), result_path=str(tmp_path / name), **options)
        assert run(args) == 0
    whole = (tmp_path / 'whole').read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / 'cut').write_bytes(b''.join(lines[:7]) + lines[7][:20])
    assert run(args) == 0
    assert (tmp_path / 'cut').read_bytes() == whole
    assert run(args) == 0 and (tmp_path / 'cut').read_bytes() == whole
    (tmp_path / 'cut').write_bytes(b''.join(lines[1:3]))
    with pytest.raises(UsageError, match='line 1: this is no answer to row 1'):
        run(args)
    (tmp_path / 'cut').write_text('text\n')
    with pytest.raises(UsageError, match='no file of results'):
        run(args)
    with pytest.raises(UsageError, match='is a folder'):
        run(replace(args, result_path=str(tmp_path)))


def test_sampling_values() -> None:
    defaults = {'temperature': 0.7, 'top_p': 0.8}
    assert sampling(InferArgs(model_type='tiny-chat'), defaults) == defaults | {'stop': []}
    typed = InferArgs(model_type='tiny-chat', temperature=0.2, top_k=5, stop_words=['x'])
    assert sampling(typed, defaults) == {'temperature': 0.2, 'top_p': 0.8, 'top_k': 5, 'stop': ['x']}
    assert sampling(InferArgs(model_type='tiny-chat', do_sample=False), defaults)['temperature'] == 0
    assert sampling(InferArgs(model_type='tiny-chat', do_sample=True), {'temperature': 0.0})['temperature'] == 1


def test_result_row_and_file(tmp_path: Path) -> None:
    call = [{'type': 'function', 'function': {'name': 'f', 'arguments': {}}}]
    messages = [
        {'role': 'system', 'content': 's'},
        {'role': 'user', 'content': 'a'},
        {'role': 'assistant', 'content': None, 'tool_calls': call},
        {'role': 'tool', 'content': '3'},
    ]
    made = row(messages, 'r', 'l')
    assert made['query'] == '3' and made['history'] == [['a', json.dumps(call)]] and made['system'] == 's'
    for _ in range(2):
        with ResultFile(tmp_path) as file:
            assert file.path is None
            file.write(made)
    assert len(list(tmp_path.iterdir())) == 2, 'two runs in one second have a file each'
    with ResultFile(None) as file:
        file.write(made)
    (tmp_path / 'file').write_text('')
    with pytest.raises(SwiftliteError, match='cannot be written'), ResultFile(tmp_path / 'file') as file:
        file.write(made)


def test_errors(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    model = {'model_id_or_path': str(checkpoint), **SETTINGS}
    with pytest.raises(UsageError, match='one adapter'):
        run(InferArgs(lora_modules=[f'a={adapter}', f'b={adapter}'], val_dataset=['self-cognition'], **model))
    with pytest.raises(SwiftliteError, match='no rows'):
        run(InferArgs(val_dataset=[write(tmp_path / 'empty.jsonl', [])], **model))
    with pytest.raises(SwiftliteError, match='no rows'):
        run(InferArgs(eval_human=False, **model))


def test_a_share_of_dataset_says_so(checkpoint: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(InferArgs(model_id_or_path=str(checkpoint), dataset=[data], save_result=False, **SETTINGS))
    assert '1 rows to answer (what is held out of --dataset; all rows: --val_dataset)' in capsys.readouterr().out


def test_texts_that_end_a_template_end_an_answer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = InferArgs(model_id_or_path=str(checkpoint), stop_words=['mine'], **SETTINGS)
    session = Session(prepare(args), args)
    monkeypatch.setattr(session.template, 'stop_strings', ('###',))
    assert session.params([1]).stop == ['mine', '###']
    session.close()


def test_a_label_that_is_no_utf8_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    """Half a surrogate pair in a label asks nothing of the model, and the row is written and found again."""
    rows = tmp_path / 'rows.jsonl'
    rows.write_text(
        '{"query": "你好", "response": "\\ud800"}\n{"query": "好", "response": "\u2028\x85"}\n', encoding='utf-8'
    )
    out = tmp_path / 'out.jsonl'
    args = InferArgs(model_id_or_path=str(checkpoint), **SETTINGS, val_dataset=[str(rows)], result_path=str(out))
    assert run(args) == 0
    first, second, end = out.read_text(encoding='utf-8').split('\n')
    assert json.loads(first)['label'] == '\ud800' and end == ''
    assert json.loads(second)['label'] == '\u2028\x85' and '好' in second
    assert run(args) == 0 and len(out.read_text(encoding='utf-8').split('\n')) == 3
