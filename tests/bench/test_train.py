"""`swiftlite bench train` on a tiny model: its figures, the losses beside transformers', what it refuses."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from swiftlite.bench.train_report import table
from swiftlite.bench.train_rows import random_rows
from swiftlite.cli.main import run as main
from swiftlite.train.watching.speed import known_peak, token_flops

SHORT = [
    '--row_length',
    '24',
    '--num_steps',
    '3',
    '--num_warmups',
    '1',
    '--learning_rate',
    '1e-2',
    '--ceilings',
    'false',
]


def measured(capsys, base, *flags) -> list[dict]:
    assert main(['bench', 'train', '--model', str(base), '--template_type', 'default', *SHORT, *flags]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{')]


KINDS = [
    ['--sft_type', 'full'],
    ['--lora_target_modules', 'ALL', '--row_length', 'chat', '--lora_dropout', '0'],
    ['--quantization_bit', '4', '--lora_dropout', '0'],
    ['--use_dora', 'true', '--lora_dropout', '0', '--weight_decay', '0'],  # magnitudes are not decayed here
]


@pytest.mark.parametrize('flags', KINDS)
def test_losses_lie_on_those_of_transformers(base, capsys, tmp_path, flags):
    """Same rows, weights, seeds: fp32 curves agree, though batches are cut differently."""
    files = ['--output', str(tmp_path / 'out.json'), '--plot', str(tmp_path / 'out.png')]
    flags = [*flags, '--gradient_accumulation_steps', '2', '--batch_size', '2', *files]
    plain, ours = measured(capsys, base, *flags)
    assert (plain['engine'], ours['engine']) == ('transformers', 'swiftlite')
    assert len(ours['losses']) == 4 and ours['losses'][0] != pytest.approx(ours['losses'][-1], abs=1e-2)
    assert ours['largest_loss_difference'] < 1e-3
    assert ours['largest_loss_difference'] == pytest.approx(
        max(abs(a - b) for a, b in zip(ours['losses'], plain['losses'], strict=True)), abs=1e-5
    )
    assert plain['tokens'] == ours['tokens'] > 0
    assert ours['faster_by'] == pytest.approx(ours['tokens_per_second'] / plain['tokens_per_second'], rel=0.01)
    assert [json.loads(line) for line in (tmp_path / 'out.json').read_text().splitlines()] == [plain, ours]
    assert (tmp_path / 'out.png').stat().st_size > 5000


def test_switches_are_measured_both_ways(base, capsys):
    found = measured(capsys, base, '--vary', 'gradient_checkpointing', 'group_by_length', '--against', 'none')
    assert [line['switches'] for line in found] == [
        {'gradient_checkpointing': a, 'group_by_length': b} for a in (True, False) for b in (True, False)
    ]
    assert all('faster_by' not in line for line in found)


@pytest.mark.parametrize(
    ('flags', 'says'),
    [
        (['--output_dir', 'x'], "--output_dir is a flag of 'swiftlite sft'"),
        (['--save_total_limit', '3'], "--save_total_limit is a flag of 'swiftlite sft'"),
        (['--vary', 'gradient_checkpoint'], "did you mean 'gradient_checkpointing'"),
        (['--row_length', 'long'], '--row_length takes a number from 2, or chat'),
        (['--config_preset', 'qwen2.5-7b'], '--config_preset stands in place of a model'),
        (['--fsdp', 'full_shard'], 'give --against none'),
    ],
)
def test_refusals(base, capsys, flags, says):
    assert main(['bench', 'train', '--model', str(base), *flags]) == 2
    assert says in capsys.readouterr().err


def test_too_long_for_the_model(base, capsys):
    assert main(['bench', 'train', '--model', str(base), '--template_type', 'default', '--row_length', '9999']) == 2
    assert '--row_length 9999 is longer than the 256 tokens' in capsys.readouterr().err
    flags = ['--row_length', '99', '--max_length', '64']
    assert main(['bench', 'train', '--model', str(base), '--template_type', 'default', *flags]) == 2
    assert '--row_length 99 is longer than --max_length 64' in capsys.readouterr().err


def test_rows_are_the_same_for_a_seed():
    rows, again, other = (random_rows(50, None, 300, 1000, seed) for seed in (1, 1, 2))
    assert (rows.input_ids == again.input_ids).all() and len(rows.input_ids) != len(other.input_ids)
    assert rows.lengths.max() == 300
    assert 0 < (rows.labels == -100).sum() < len(rows.labels)
    counts = np.bincount(random_rows(100, 200, 200, 1000, 0).input_ids)
    assert counts[:10].sum() == 0 and counts[10:60].sum() > counts[500:].sum()


@pytest.mark.parametrize('tied', [True, False])
def test_products_of_a_token(tied):
    """Against a count of every product that torch runs in a step (attention counts whole rows there, half here)."""
    from torch.utils.flop_counter import FlopCounterMode

    config = AutoConfig.for_model('qwen2', vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation='eager')
    ids = torch.randint(50, (3, 16))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids).loss.backward()
    attention = 3 * 2 * 4 * 8 * 32 * 3 * 16
    first = 2 * 32 * (32 + 16 + 16) * 3 * 16  # torch skips nothing: the embedding is trained
    assert token_flops(model, 16) * 3 * 16 + attention == pytest.approx(counter.get_total_flops(), abs=first)


@pytest.mark.parametrize(
    ('name', 'tflops'),
    [
        ('NVIDIA H200', 989),
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA A100-SXM4-80GB', 312),
        ('NVIDIA H20', 148),
        ('NVIDIA GeForce RTX 4090', 165),
        ('Radeon', None),
    ],
)
def test_peaks(name, tflops):
    assert known_peak(name) == (tflops and tflops * 1e12)


@pytest.mark.parametrize('columns', [None, '80'])
def test_a_table_shows_every_number(columns, monkeypatch, capsys):
    monkeypatch.delenv('COLUMNS', raising=False)
    if columns:
        monkeypatch.setenv('COLUMNS', columns)
    line = {'engine': 'swiftlite', 'switches': {'gradient_checkpointing': False}, 'tokens_per_second': 17581.2}
    line |= {
        'peak_gib': 41.7,
        'mfu': 0.521,
        'faster_by': 1.449,
        'share_of_memory': 0.52,
        'largest_loss_difference': 0.00123,
    }
    table([line])
    shown = capsys.readouterr().out
    assert all(number in shown for number in ('17,581', '41.7', '52.1%', '1.45 x', '52%', '0.0012'))
    assert max(map(len, shown.splitlines())) <= int(columns or 200)
