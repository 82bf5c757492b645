"""Two processes compute what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def test_two_processes_equal_one(sft, checkpoint, data, tmp_path):
    """4 x 2 processes x 1 = 8 x 1: losses and weights of 16 rows, 2 steps; only the first process speaks and writes."""
    flags = {'dataset': [f'{data}#16'], 'learning_rate': 1e-3, 'gradient_accumulation_steps': 1}
    alone = Path(sft(batch_size=8, **flags)['last_model_checkpoint'])
    command = [sys.executable, '-m', 'swiftlite', 'sft', '--model', str(checkpoint), '--template_type', 'tiny-chat']
    command += ['--dataset', f'{data}#16', '--learning_rate', '1e-3', '--gradient_accumulation_steps', '1']
    command += ['--batch_size', '4', '--lora_dropout', '0', '--dataset_test_ratio', '0', '--logging_steps', '1']
    command += ['--report_to', 'none', '--output_dir', str(tmp_path / 'two')]
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        'NPROC_PER_NODE': '2',
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': os.pathsep.join([str(root), str(root / 'kernels'), os.environ.get('PYTHONPATH', '')]),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('training data:') == done.stdout.count('last checkpoint:') == 1
    (together,) = (tmp_path / 'two' / 'tiny').glob('v*/checkpoint-2')
    logs = [
        [json.loads(line) for line in (f.parent / 'logging.jsonl').read_text().splitlines()] for f in (alone, together)
    ]
    for one, two in zip(*logs, strict=True):
        if 'loss' in one:
            assert two['loss'] == pytest.approx(one['loss'], abs=1e-5)
            assert two['token_acc'] == pytest.approx(one['token_acc'], abs=1e-4)
    assert logs[1][-1]['tokens'] == logs[0][-1]['tokens']
    left, right = (load_file(folder / 'adapter_model.safetensors') for folder in (alone, together))
    assert all(torch.allclose(left[name], right[name], atol=2e-4) for name in left)
