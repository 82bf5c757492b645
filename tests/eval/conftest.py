import json
from pathlib import Path

import pytest

from tests.served import tiny_chat_checkpoint
from tests.tiny import tiny_adapter

ROWS = [
    *(
        {'query': f'What is {i} and {i + 1}? ' * (i % 3 + 1), 'response': f'It is {2 * i + 1}, I think.'}
        for i in range(10)
    ),
    {'question': 'Which one?', 'A': 'this', 'B': 'that', 'C': 'none', 'answer': 'b'},
    {'query': '你好', 'response': '你好！', 'system': 'Be brief.', 'history': [['a', 'b']]},
    {'query': 'no label'},
    {'query': 'too long ' * 300, 'response': 'x'},
    {'nothing': 1},
]


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='session')
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp('adapter'), checkpoint)


@pytest.fixture
def data(tmp_path: Path) -> str:
    file = tmp_path / 'mixed.jsonl'
    file.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in ROWS), encoding='utf-8')
    return str(file)
