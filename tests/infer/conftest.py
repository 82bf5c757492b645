from pathlib import Path

import pytest

from tests.served import tiny_chat_checkpoint
from tests.tiny import tiny_adapter


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='session')
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp('adapter'), checkpoint)
