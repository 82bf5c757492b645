import pytest

from tests.served import MAX_LEN, ServerThread, tiny_chat_checkpoint
from tests.tiny import tiny_qwen2


@pytest.fixture(scope='session')
def base(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    """A model of 320 tokens, with a tokenizer."""
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('served'))


@pytest.fixture(scope='session')
def server(checkpoint):
    """A real server over it."""
    with ServerThread(checkpoint, max_model_len=MAX_LEN) as running:
        yield running
