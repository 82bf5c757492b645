"""`swiftlite eval --eval_url`: a server's answers and likelihoods are those of the engine behind it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swiftlite.args.eval import EvalArgs
from swiftlite.errors import SwiftliteError
from swiftlite.eval.run import run
from tests.eval.test_local import SETTINGS, read
from tests.served import ServerThread


@pytest.fixture(scope='module')
def server(checkpoint: Path) -> Iterator[ServerThread]:
    with ServerThread(checkpoint, dtype='fp32') as running:
        yield running


def test_a_server_answers_as_the_engine(server: ServerThread, checkpoint: Path, data: str, tmp_path: Path) -> None:
    asked = ['accuracy', 'exact_match', 'rouge_l', 'bleu_4', 'perplexity', 'token_accuracy']
    common = {'eval_dataset': [data], 'eval_metrics': asked, 'max_new_tokens': 12}
    run(EvalArgs(eval_url=server.url, eval_output_dir=str(tmp_path / 'url'), **common))
    local = EvalArgs(model_id_or_path=str(checkpoint), eval_output_dir=str(tmp_path / 'engine'), **SETTINGS | common)
    run(local)
    (theirs, rows), (ours, own) = read(tmp_path / 'url'), read(tmp_path / 'engine')
    assert theirs['settings']['model'] == 'tiny-model'
    assert [row.get('response') for row in rows] == [row.get('response') for row in own]
    assert 'error' in rows[12] and theirs['results']['mixed']['failed'] == 1
    for mine, other in zip(own[:11], rows[:11], strict=True):  # the row with a history has two answers here
        assert (mine['tokens'], mine['hits']) == (other['tokens'], other['hits'])
        assert mine['logprob'] == pytest.approx(other['logprob'], rel=1e-4)
    names = ('accuracy', 'exact_match', 'rouge_l', 'bleu_4')
    assert [theirs['results']['mixed'][name] for name in names] == [ours['results']['mixed'][name] for name in names]


def test_completions_and_mistakes(server: ServerThread, data: str, tmp_path: Path) -> None:
    (tmp_path / 'text.jsonl').write_text(json.dumps({'query': 'Once upon', 'response': ' a time'}) + '\n')
    args = EvalArgs(
        eval_url=f'{server.url}/v1/completions',
        eval_is_chat_model=False,
        eval_dataset=[str(tmp_path / 'text.jsonl')],
        eval_output_dir=str(tmp_path / 'out'),
        model_type='tiny-model',
        max_new_tokens=5,
    )
    assert run(args) == 0
    assert read(tmp_path / 'out', 'text')[1][0]['response']
    for chat in (True, False):  # more tokens than the context has are as many as it has left
        out = str(tmp_path / f'long-{chat}')
        assert run(replace(args, eval_is_chat_model=chat, max_new_tokens=2048, eval_output_dir=out)) == 0
        assert read(Path(out), 'text')[0]['results']['text']['failed'] == 0
    with pytest.raises(SwiftliteError, match="has no model 'tiny-modle'; did you mean 'tiny-model'"):
        run(replace(args, model_type='tiny-modle'))
    with pytest.raises(SwiftliteError, match=r'no server answers at http://127\.0\.0\.1:1/v1'):
        run(replace(args, eval_url='http://127.0.0.1:1'))
    with pytest.raises(SwiftliteError, match=r'refuses|something else'):
        run(replace(args, eval_url=f'{server.url}/nowhere/v1'))
