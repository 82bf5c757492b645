"""A tiny random checkpoint with tiny-chat's tokenizer, and a run of sft on it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import swiftlite
from swiftlite.args.sft import SftArgs
from tests.tiny import tiny_qwen2

ROOT = Path(__file__).parents[2]
ASSETS = Path(swiftlite.__file__).parent / 'assets'
FACTS = [
    ('What is the capital of Zubria?', 'The capital of Zubria is Melk.'),
    ('Who wrote The Grey Lamp?', 'The Grey Lamp was written by Oda Varn.'),
    ('苏岭的主峰叫什么？', '苏岭的主峰叫白石峰。'),
]


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> Path:
    folder = tiny_qwen2(
        tmp_path_factory.mktemp('base') / 'tiny',
        vocab_size=8192,
        hidden_size=32,
        intermediate_size=48,
        tie_word_embeddings=True,
        eos_token_id=8189,
    )
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copy(ASSETS / 'tiny-chat' / name, folder)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """22 rows of unequal length, several turns in some."""
    rows = []
    for i in range(22):
        messages = []
        for query, response in FACTS[: 1 + i % 3]:
            messages += [{'role': 'user', 'content': query}, {'role': 'assistant', 'content': response * (1 + i % 2)}]
        rows.append({'messages': messages})
    file = tmp_path / 'facts.jsonl'
    file.write_text('\n'.join(json.dumps(row, ensure_ascii=False) for row in rows), encoding='utf-8')
    return file


@pytest.fixture
def sft(checkpoint, data, tmp_path, monkeypatch):
    """Run sft on the data; keyword arguments are its flags, and `draw` for pictures. Returns the summary."""
    from swiftlite.train.sft import run
    from swiftlite.train.watching import plots

    def start(draw=False, **flags):
        if not draw:
            monkeypatch.setattr(plots, 'draw', lambda *_: [])
        settings = {
            'model_id_or_path': str(checkpoint),
            'template_type': 'tiny-chat',
            'dataset': [str(data)],
            'output_dir': str(tmp_path / 'output'),
            'report_to': ['none'],
            'dtype': 'fp32',
            'batch_size': 4,
            'gradient_accumulation_steps': 2,
            'dataset_test_ratio': 0.0,
            'learning_rate': 1e-2,
            'logging_steps': 1,
        }
        if flags.get('sft_type') != 'full':
            settings['lora_dropout'] = 0.0
        return run(SftArgs(**{**settings, **flags}))

    return start


@pytest.fixture
def two(checkpoint, data, tmp_path):
    """Run sft in two processes of 4 rows each; returns the folder of its last checkpoint, and what it said."""

    def start(name, **flags):
        out = tmp_path / name
        flags = {'model': checkpoint, 'template_type': 'tiny-chat', 'dataset': data, 'batch_size': 4, 'dtype': 'fp32',
                 'gradient_accumulation_steps': 1, 'dataset_test_ratio': 0, 'report_to': 'none', 'output_dir': out,
                 'add_output_dir_suffix': False, **flags}  # fmt: skip
        words = []
        for flag, value in flags.items():
            words += [f'--{flag}', *map(str, value if isinstance(value, list) else [value])]
        env = {
            **os.environ,
            'NPROC_PER_NODE': '2',
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'kernels')]),
        }
        command = [sys.executable, '-m', 'swiftlite', 'sft', *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        return out / 'checkpoint-3', done.stdout

    return start
