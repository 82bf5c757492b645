"""`swiftlite bench serve` against real servers: one that runs, and one that it starts itself."""

import json
import os
import signal

import httpx
import pytest

from swiftlite.bench import serve
from swiftlite.bench.load import Load, Row
from swiftlite.bench.serve import _keeps
from swiftlite.cli.main import run as main

LENGTHS = ['--max_input_len', '40', '--max_output_len', '24', '--vocab_size', '300']


def command(server, words, *more):
    return ['bench', 'serve', '--base_url', server.url, *LENGTHS, *words, *more]


def test_a_server_that_runs(server, tmp_path, capsys):
    out, picture = tmp_path / 'serve.json', tmp_path / 'serve.png'
    words = [
        '--num_prompts',
        '6',
        '--request_rate',
        '40',
        '--max_concurrency',
        '3',
        '--goodput',
        'ttft:60000',
        'e2el:60000',
    ]
    assert main(command(server, words, '--output', str(out), '--plot', str(picture))) == 0
    line = json.loads(out.read_text())
    rows = line['rows']
    assert (line['requests'], line['failed'], line['kept'], line['model']) == (6, 0, 6, 'tiny-model')
    assert line['most_at_once'] <= 3 and [row['index'] for row in rows] == list(range(6))
    assert line['output_tokens'] == sum(row['output_tokens'] for row in rows)
    for row in rows:
        assert 16 <= row['output_tokens'] <= 24 and 16 <= row['prompt_tokens'] <= 40 and row['error'] is None
        assert 0 < row['ttft'] <= row['e2e'] and row['e2e'] >= sum(row['gaps'])
        assert row['sent'] >= row['due']
    for name in ('ttft_ms', 'itl_ms', 'tpot_ms', 'e2e_ms'):
        assert 0 <= line[name]['p50'] <= line[name]['p90'] <= line[name]['p99'] <= line[name]['max']
    assert line['goodput'] == pytest.approx(6 / line['seconds'], rel=0.01)
    assert picture.read_bytes().startswith(b'\x89PNG')
    printed = capsys.readouterr().out
    assert 'time to first token' in printed and 'goodput' in printed and '"rows"' not in printed


def test_chat_with_text_and_sampling(server, tmp_path):
    out = tmp_path / 'chat.json'
    words = [
        '--endpoint',
        'chat',
        '--num_prompts',
        '2',
        '--temperature',
        '0.8',
        '--top_p',
        '0.9',
        '--num_warmups',
        '1',
        '--repeats',
        '2',
    ]
    assert main(command(server, words, '--output', str(out))) == 0
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert first['endpoint'] == 'chat' and first['failed'] == second['failed'] == 0


def test_errors_of_the_server_are_counted(server, capsys):
    """Prompts of up to 600 tokens where 512 is the most; the short ones are answered."""
    words = f'bench serve --base_url {server.url} --vocab_size 300 --num_prompts 8 --num_warmups 0'.split()
    assert main([*words, '--min_input_len', '300', '--max_input_len', '900', '--max_output_len', '16']) == 0
    out = capsys.readouterr().out
    line = json.loads(out.splitlines()[-1])
    assert line['requests'] == 8 and 0 < line['failed'] < 8 and sum(line['errors'].values()) == line['failed']
    assert all(error.startswith('400: ') for error in line['errors'])
    assert f'{line["failed"]} failed' in out


def test_nothing_but_errors_ends_with_what_the_server_said(server, capsys):
    words = f'bench serve --base_url {server.url} --num_prompts 4 --max_output_len 16'.split()
    assert main(words) == 1
    err = capsys.readouterr().err
    assert 'answers no request: 400: ' in err and '--vocab_size limits the token ids' in err
    assert main([*words, '--num_warmups', '0']) == 1


def test_it_starts_a_server_of_its_own_and_ctrl_c_prints_what_was_measured(checkpoint, tmp_path, monkeypatch, capsys):
    run_load = serve.run_load

    async def interrupted(*words, on_row=None, **options):
        def on_row_or_stop(row):
            on_row(row)
            if row.index == 1:
                os.kill(os.getpid(), signal.SIGINT)

        return await run_load(*words, on_row=on_row and on_row_or_stop, **options)

    monkeypatch.setattr(serve, 'run_load', interrupted)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    out = tmp_path / 'own.json'
    words = f'bench serve --model {checkpoint} --workload mixed-lora --num_adapters 1 --lora_rank 4 --num_prompts 60'
    words += ' --max_output_len 16 --request_rate 3 --num_warmups 1'
    assert main([*words.split(), '--output', str(out)]) == 130
    printed, err = capsys.readouterr()
    assert 'this is what was measured so far' in err and 'time to first token' in printed
    line = json.loads(out.read_text())
    assert line['stopped'] and 1 <= line['requests'] < 60 and line['failed'] == 0
    assert line['first_token_seconds'] >= line['ready_seconds'] > 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f'{line["url"]}/models', trust_env=False)


def test_goodput_counts_requests_that_keep_all_limits():
    row = Row(0, 0.0, ttft=0.1, gaps=[0.01, 0.05], e2e=0.16, output_tokens=3)
    assert row.tpot == pytest.approx(0.03)
    assert _keeps(row, {'ttft': 100, 'tpot': 31, 'itl': 50, 'e2e': 160})
    for name, limit in (('ttft', 99), ('tpot', 29), ('itl', 49), ('e2e', 159)):
        assert not _keeps(row, {name: limit})
    assert _keeps(Row(0, 0.0, ttft=0.1, e2e=0.1, output_tokens=1), {'itl': 1, 'tpot': 1})
    assert Load().rows == []


@pytest.mark.parametrize(
    ('words', 'status', 'said'),
    [
        ('--base_url http://127.0.0.1:9', 1, 'no server answers at http://127.0.0.1:9/v1'),
        ('--base_url nowhere', 2, "is an address such as http://127.0.0.1:8000/v1, not 'nowhere'"),
        ('--base_url http://x --workload chat-lora', 2, 'the -lora workloads need a server that is started for them'),
        ('--base_url http://x --max_num_seqs 4', 2, '--max_num_seqs does not go with --base_url'),
        ('--base_url http://x --goodput ttfx:3', 2, "did you mean 'ttft'"),
        ('--base_url http://x --goodput ttft', 2, 'takes ttft:MILLISECONDS'),
        ('--base_url http://x --request_rate 0', 2, 'a number above 0, or inf'),
        ('--base_url http://x --endpoint chat --prompt_format ids', 2, 'whose prompts are texts'),
        ('--base_url http://x --baselines none', 2, "a flag of 'swiftlite bench throughput', not of 'serve'"),
        ('--base_url http://x --plot nowhere/x.png', 2, "'nowhere' is no folder: give the name of a png file"),
        ('', 2, 'no model is given'),
    ],
)
def test_mistakes_are_one_sentence(words, status, said, capsys):
    assert main(['bench', 'serve', *words.split()]) == status
    err = capsys.readouterr().err.strip()
    assert said in err and '\n' not in err


def test_a_model_that_the_server_lacks(server, capsys):
    assert main(command(server, ['--model', 'tiny-modle'])) == 1
    assert "has no model 'tiny-modle'; did you mean 'tiny-model'" in capsys.readouterr().err
