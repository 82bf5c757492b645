"""`swiftlite bench throughput` on a tiny model: its table, its numbers, its refusals."""

import json

import pytest

from swiftlite.bench.workload import mixed
from swiftlite.cli.main import run as main


def test_the_numbers_are_consistent(tmp_path, base, capsys):
    out = tmp_path / 'numbers.json'
    command = ['bench', 'throughput', '--model', str(base), '--num_prompts', '4', '--max_input_len', '30']
    assert main([*command, '--max_output_len', '20', '--output', str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found['tokens_per_second']) == {
        'swiftlite',
        'transformers, one padded batch',
        'transformers, one by one',
    }
    assert found['output_tokens'] == sum(r.output_len for r in mixed(4, (16, 30), (16, 20), 128, 0))
    speeds = found['tokens_per_second']
    for name, ratio in found['ratio'].items():
        assert ratio == pytest.approx(speeds['swiftlite'] / speeds[name], rel=0.02)
    printed = capsys.readouterr().out
    assert 'one padded batch' in printed and json.dumps(found) in printed


def test_lengths_beyond_the_model_are_one_sentence(base, capsys):
    assert main(['bench', 'throughput', '--model', str(base), '--max_output_len', '500']) == 2
    assert "more than the model's 256 tokens" in capsys.readouterr().err


def test_requests_are_seeded_and_within_their_limits():
    requests = mixed(50, (3, 9), (2, 4), 100, 7)
    assert requests == mixed(50, (3, 9), (2, 4), 100, 7) != mixed(50, (3, 9), (2, 4), 100, 8)
    assert {len(r.prompt) for r in requests} == set(range(3, 10)) and {r.output_len for r in requests} == {2, 3, 4}
