"""`swiftlite eval` with an engine of its own: rows, numbers, resumption."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from swiftlite.args.eval import EvalArgs
from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.cli.parse import parse
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.eval import metrics
from swiftlite.eval.run import run
from swiftlite.template import get_template
from tests.tiny import EXACT, EXACT_FLAGS

SETTINGS = {'template_type': 'tiny-chat', 'max_new_tokens': 12, **EXACT}


def read(folder: Path, name: str = 'mixed') -> tuple[dict, list[dict]]:
    """(report, rows) of the one run in `folder`."""
    (report,) = folder.glob('*/*/report.json')
    rows = (report.parent / f'{name}.jsonl').read_text(encoding='utf-8').split('\n')
    return json.loads(report.read_text(encoding='utf-8')), [json.loads(line) for line in rows if line]


@pytest.fixture
def args(checkpoint: Path, data: str, tmp_path: Path) -> EvalArgs:
    out = str(tmp_path / 'out')
    return EvalArgs(model_id_or_path=str(checkpoint), eval_dataset=[data], eval_output_dir=out, **SETTINGS)


def test_rows_and_numbers(args: EvalArgs, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of the report follows from the rows; perplexity is exp of the loss that training would see."""
    assert run(args) == 0
    printed = capsys.readouterr().out
    assert 'mixed: 13 rows, 2 dropped' in printed and 'mixed: 1 rows failed' in printed and 'takes 512' in printed
    report, rows = read(Path(args.eval_output_dir))
    found = report['results']['mixed']
    assert [row['index'] for row in rows] == list(range(13))
    assert 'error' in rows[12] and found['failed'] == 1 and 'response' in rows[0]
    assert rows[11]['system'] == 'Be brief.' and rows[11]['history'] == [['a', 'b']]
    asked = [*rows[:10], rows[11]]
    assert rows[10]['label'] == 'B' and 'rouge_l' not in rows[10] and found['accuracy'] == rows[10]['accuracy']
    assert found['rouge_l'] == pytest.approx(sum(row['rouge_l'] for row in asked) / 11, abs=0.005)
    bleu = metrics.bleu_4([row['response'] for row in asked], [row['label'] for row in asked])
    assert found['bleu_4'] == pytest.approx(bleu, abs=0.005)

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    template = get_template('tiny-chat', load_tokenizer(str(checkpoint)))
    total, count, hits = 0.0, 0, 0
    for row in rows[:12]:
        messages = [{'role': 'system', 'content': row['system']}] if row['system'] else []
        for query, response in [*row['history'], [row['query'], row['label']]]:
            messages += [{'role': 'user', 'content': query}, {'role': 'assistant', 'content': response}]
        encoded = template.encode_training(messages)
        labels = torch.tensor(encoded.labels[1:])
        with torch.no_grad():
            logits = model(torch.tensor([encoded.input_ids])).logits[0, :-1]
        chosen = labels >= 0
        logprobs = logits.log_softmax(-1)[chosen].gather(1, labels[chosen, None])[:, 0]
        assert row['logprob'] == pytest.approx(float(logprobs.sum()), rel=1e-4)
        total, count = total + float(logprobs.sum()), count + int(chosen.sum())
        hits += int((logits[chosen].argmax(-1) == labels[chosen]).sum())
    assert found['perplexity'] == pytest.approx(math.exp(-total / count), rel=1e-3)
    assert found['tokens'] == count and found['token_accuracy'] == pytest.approx(100 * hits / count, abs=0.01)


def test_a_run_that_was_cut_off_goes_on(args: EvalArgs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished rows are kept, half a line is not, and rows and report are those of a run in one go."""
    args = replace(args, temperature=1.0, do_sample=True, eval_batch_size=3)
    run(args)
    _, rows = read(Path(args.eval_output_dir))
    other = replace(args, eval_output_dir=str(tmp_path / 'cut'))
    run(other)
    folder = next(Path(other.eval_output_dir).glob('*/*'))
    (folder / 'report.json').unlink()
    (folder / 'mixed.jsonl').unlink()
    facts = [{'index': row['index'], 'response': row['response']} for row in rows[3:6]]
    marked = {'index': 7, 'response': 'KEPT', 'finish_reason': 'stop'}
    lines = ''.join(json.dumps(line) + '\n' for line in [*facts, marked])
    (folder / 'mixed.part.jsonl').write_text(lines + '{"index": 9, "respon')
    capsys.readouterr()
    run(other)
    assert 'mixed: 4 rows are known from an earlier run' in capsys.readouterr().out
    _, again = read(Path(other.eval_output_dir))
    assert again[7]['response'] == 'KEPT', 'what was known was not asked again'
    assert [row['response'] for i, row in enumerate(again) if i != 7 and 'response' in row] == [
        row['response'] for i, row in enumerate(rows) if i != 7 and 'response' in row
    ]
    run(replace(other, eval_use_cache=True))
    assert 'mixed: 13 rows are known' in capsys.readouterr().out
    run(other)  # an equal run that is finished: measured anew, beside it
    run(replace(other, max_new_tokens=3))
    assert len(list(Path(other.eval_output_dir).glob('*/*/report.json'))) == 3


def test_a_killed_run_goes_on(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL in the middle, then the same command: the rows are byte for byte those of a run that was left alone."""
    rows = [{'query': f'question {i}', 'response': f'answer {i}'} for i in range(60)]
    (tmp_path / 'long.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    words = ['--model', str(checkpoint), '--template_type', 'tiny-chat', '--eval_dataset', str(tmp_path / 'long.jsonl')]
    words += ['--max_new_tokens', '40', '--do_sample', 'true', '--temperature', '1', '--eval_batch_size', '2']
    words += ['--eval_metrics', 'rouge_l', '--seed', '3', *EXACT_FLAGS, '--eval_output_dir']
    command = [sys.executable, '-m', 'swiftlite', 'eval', *words, str(tmp_path / 'killed')]
    env = os.environ | {'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline, lines = time.monotonic() + 60, 0
    while lines < 5 and time.monotonic() < deadline:
        parts = list(tmp_path.glob('killed/*/*/long.part.jsonl'))
        lines = parts[0].read_bytes().count(b'\n') if parts else 0
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= lines < 60 and not list(tmp_path.glob('killed/*/*/report.json'))
    for name in ('killed', 'alone'):
        assert run(parse(EvalArgs, [*words, str(tmp_path / name)], 'eval')) == 0
    assert capsys.readouterr().out.count('rows are known from an earlier run') == 1
    (killed,), (alone,) = (list(tmp_path.glob(f'{name}/*/*/long.jsonl')) for name in ('killed', 'alone'))
    assert killed.read_bytes() == alone.read_bytes()


def test_an_adapter_and_its_held_out_rows(args: EvalArgs, checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """--load_dataset_config; the adapter answers, and a metric that is asked for is the only one."""
    folder = tmp_path / 'checkpoint-1'
    folder.mkdir()
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rows = [{'query': f'q {i}', 'response': f'r {i}'} for i in range(40)]
    (tmp_path / 'train.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    common = {'dataset': [str(tmp_path / 'train.jsonl')], 'dataset_test_ratio': 0.1, 'eval_dataset': []}
    common |= {'eval_metrics': ['token_accuracy', 'perplexity']}
    (folder / 'sft_args.json').write_text(json.dumps({'model_id_or_path': str(checkpoint)}))
    found = {}
    for name, options in (('base', {}), ('lora', {'ckpt_dir': str(folder), 'model_id_or_path': None})):
        run(replace(args, eval_output_dir=str(tmp_path / name), **common, **options))
        found[name] = read(tmp_path / name, 'train-held-out')[0]['results']['train-held-out']
    assert set(found['base']) == {'rows', 'failed', 'dropped', 'perplexity', 'token_accuracy', 'tokens'}
    assert found['base']['rows'] == 4 and found['base']['perplexity'] != found['lora']['perplexity']


def test_plain_text(args: EvalArgs, checkpoint: Path, tmp_path: Path) -> None:
    """Text without a question has a likelihood and nothing else; choosing another metric for it is a mistake."""
    (tmp_path / 'text.jsonl').write_text('{"text": "Hello there, how are you?"}\n{"response": "I am fine."}\n')
    options = replace(args, eval_dataset=[str(tmp_path / 'text.jsonl')])
    assert run(options) == 0
    report, rows = read(Path(args.eval_output_dir), 'text')
    assert set(report['results']['text']) == {'rows', 'failed', 'dropped', 'perplexity', 'token_accuracy', 'tokens'}
    template = get_template('tiny-chat', load_tokenizer(str(checkpoint)))
    encoded = template.encode_training([{'role': 'text', 'content': rows[1]['label']}])
    assert rows[1]['tokens'] == sum(label >= 0 for label in encoded.labels[1:]) and rows[1]['query'] is None
    with pytest.raises(UsageError, match='no row of the data asks anything'):
        run(replace(options, eval_metrics=['rouge_l']))


def test_custom_eval_config(args: EvalArgs, tmp_path: Path) -> None:
    """ms-swift's file: general_qa and ceval, files and folders."""
    folder = tmp_path / 'ceval'
    folder.mkdir()
    (folder / 'law_val.csv').write_text('id,question,A,B,C,D,answer\n0,哪一个？,甲,乙,丙,丁,C\n', encoding='utf-8')
    (folder / 'law_dev.csv').write_text('id,question,A,B,C,D,answer\n0,x,1,2,3,4,A\n')
    (tmp_path / 'qa.jsonl').write_text('{"query": "a", "response": "b"}\n{"query": "c", "response": "d"}\n')
    entries = [
        {'name': 'mine', 'pattern': 'general_qa', 'dataset': str(tmp_path / 'qa.jsonl')},
        {'name': 'exam', 'pattern': 'ceval', 'dataset': str(folder)},
    ]
    file = tmp_path / 'custom.json'
    file.write_text(json.dumps(entries))
    run(
        replace(args, eval_dataset=[], custom_eval_config=str(file), eval_limit=1, eval_metrics=['accuracy', 'rouge_l'])
    )
    report, rows = read(Path(args.eval_output_dir), 'exam-law')
    assert {name: each['rows'] for name, each in report['results'].items()} == {'mine': 1, 'exam/law': 1}
    assert rows[0]['label'] == 'C' and rows[0]['query'].endswith('C. 丙\nD. 丁\n请直接回答正确选项的字母。')
    for content, said in (
        ('[{"name": "a", "patern": "x", "dataset": "d"}]', "did you mean 'pattern'"),
        ('[{"name": "a", "pattern": "mmlu", "dataset": "d"}]', 'general_qa or ceval'),
        ('[{"name": "a"}]', "needs a 'dataset'"),
        ('{}', 'must hold a list'),
        ('[\n{', 'line 2 is not valid JSON'),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=said):
            run(replace(args, eval_dataset=[], custom_eval_config=str(file)))


def test_errors(args: EvalArgs, data: str, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='one adapter'):
        run(replace(args, lora_modules=[f'a={adapter}', f'b={adapter}']))
    (tmp_path / 'questions.jsonl').write_text('{"query": "a", "response": "b"}\n')
    with pytest.raises(UsageError, match='no row of the data is a multiple-choice question'):
        run(replace(args, eval_dataset=[str(tmp_path / 'questions.jsonl')], eval_metrics=['accuracy']))
    (tmp_path / 'empty.jsonl').write_text('')
    with pytest.raises(SwiftliteError, match="'empty' has no row to measure on: it is empty"):
        run(replace(args, eval_dataset=[str(tmp_path / 'empty.jsonl')]))
    with pytest.raises(SwiftliteError, match='cannot be written'):
        run(replace(args, eval_output_dir=data))
    long = tmp_path / 'long.jsonl'
    long.write_text(json.dumps({'query': 'too long ' * 300, 'response': 'x'}) + '\n')
    assert run(replace(args, eval_dataset=[str(long)], eval_output_dir=str(tmp_path / 'all'))) == 1, 'every row failed'
