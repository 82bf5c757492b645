from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from swiftlite.hub import asset_path
from tests.served import ServerThread, tiny_chat_checkpoint
from tests.tiny import tiny_adapter


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='session')
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp('adapter'), checkpoint)


@pytest.fixture(scope='session')
def server(checkpoint: Path, adapter: Path) -> Iterator[ServerThread]:
    with ServerThread(checkpoint, adapters={'tuner-a': adapter}) as running:
        yield running


@pytest.fixture
def client(server: ServerThread) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f'{server.url}/v1', api_key='EMPTY', max_retries=0) as made:
        yield made


@pytest.fixture(scope='session')
def tiny_server() -> Iterator[ServerThread]:
    """The embedded model, which writes JSON and tool calls."""
    with ServerThread(asset_path('tiny-chat')) as running:
        yield running


@pytest.fixture
def tiny_chat(tiny_server: ServerThread) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f'{tiny_server.url}/v1', api_key='EMPTY', max_retries=0) as made:
        yield made
