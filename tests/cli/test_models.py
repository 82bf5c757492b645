"""swiftlite models: what is listed, filtered and written as JSON."""

import json

import pytest

from swiftlite.cli.main import run
from swiftlite.registry.datasets import DATASETS
from swiftlite.registry.models import MODELS
from swiftlite.registry.templates import TEMPLATES


@pytest.fixture
def listed(capsys):
    def ask(*words):
        assert run(['models', *words, '--json', 'true']) == 0
        return json.loads(capsys.readouterr().out)

    return ask


def test_everything_is_listed(capsys, listed):
    assert run(['models']) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0] for line in lines if line} >= {*MODELS, *TEMPLATES, *DATASETS}
    assert ['llama3_2-1b-instruct', '1B', 'chat', 'yes', 'llama3_2'] in [line[:5] for line in lines]
    assert ['mistral-7b-instruct', '7B', 'chat', '?', '?', 'the', "checkpoint's"] in [line[:7] for line in lines]
    found = listed()
    assert [row['model_type'] for row in found['models']] == list(MODELS)
    assert all(row['size'] for row in found['models'])


def test_what_a_row_says(listed):
    (row,) = listed('qwen3-8b', '--kind', 'models', '--chat', 'true')['models']
    assert (row['size'], row['chat'], row['tools'], row['thinking']) == ('8B', True, True, True)
    assert row['lora_targets'] == ['q_proj', 'k_proj', 'v_proj'] and 'gate_proj' in row['all_linear']
    assert (row['hf_id'], row['ms_id'], row['template']) == ('Qwen/Qwen3-8B', 'Qwen/Qwen3-8B', 'qwen3')
    (row,) = listed('mistral-nemo', '--kind', 'templates')['templates']
    assert (row['tool_format'], row['thinking']) == ('mistral-nemo', False)


@pytest.mark.parametrize(
    ('words', 'holds'),
    [
        (['--tools', 'true'], lambda row: row['tools'] is True),
        (['--chat', 'false'], lambda row: row['base']),
        (['--thinking', 'true'], lambda row: row['template'] in ('qwen3', 'qwen3_thinking')),
        (['--size', '<=1B'], lambda row: row['size'][:-1] in ('0.5', '0.6', '1') or row['size'] == '7M'),
        (['--size', '70B'], lambda row: row['size'] == '70B'),
        (['META-llama'], lambda row: row['hf_id'].startswith('meta-llama/')),
    ],
)
def test_filters(listed, words, holds):
    rows = listed(*words)['models']
    assert rows and all(holds(row) for row in rows)
    kept = {row['model_type'] for row in rows}
    assert not any(holds(row) for row in listed()['models'] if row['hf_id'] and row['model_type'] not in kept)


def test_rows_of_ones_own(listed, tmp_path):
    (tmp_path / 'my.yaml').write_text('models: [{model_type: mine-3b, architecture: LlamaForCausalLM, hf_id: a/b}]')
    (row,) = listed('mine', '--custom_register_path', str(tmp_path / 'my.yaml'))['models']
    assert (row['size'], row['template']) == ('3B', None)


@pytest.mark.parametrize(
    ('words', 'status', 'said'),
    [
        (['qwn3-8b'], 1, "did you mean 'qwen3-8b'"),
        (['--size', '900B'], 1, 'nothing is as asked for'),
        (['--size', 'big'], 2, "'<=7B'"),
        (['--kind', 'modles'], 2, "did you mean 'models'"),
        (['--custom_register_path', 'my.py'], 2, 'no code is loaded'),
    ],
)
def test_mistakes(capsys, words, status, said):
    assert run(['models', *words]) == status
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1
