"""A tiny random checkpoint with tiny-chat's tokenizer, and a run of sft on it."""

import json
import shutil
from pathlib import Path

import pytest

import swiftlite
from swiftlite.args.sft import SftArgs
from tests.tiny import tiny_qwen2

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
    from swiftlite.train import plots
    from swiftlite.train.sft import run

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
