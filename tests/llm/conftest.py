from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlite.hub import asset_path
from swiftlite.llm import ModelEngine, ModelType, get_engine, get_template
from swiftlite.template import Template
from tests.served import ServerProcess
from tests.tiny import EXACT, tiny_adapter

MAX_MODEL_LEN = 128
OPTIONS = {'torch_dtype': EXACT['dtype'], 'num_gpu_blocks_override': EXACT['num_gpu_blocks_override']}


@pytest.fixture(scope='session')
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp('adapter'), Path(asset_path('tiny-chat')))


@pytest.fixture(scope='session')
def engine() -> ModelEngine:
    return get_engine(ModelType.tiny_chat, enable_lora=True, **OPTIONS)


@pytest.fixture(scope='session')
def template(engine: ModelEngine) -> Template:
    return get_template('tiny-chat', engine.hf_tokenizer)


@pytest.fixture(scope='session')
def server(adapter: Path) -> Iterator[ServerProcess]:
    """tiny-chat with an adapter; it answers to the name of a base model, too."""
    names = ['--served_model_name', 'tiny-chat', 'qwen2-7b', '--lora_modules', f'tone={adapter}']
    with ServerProcess('--model_type', 'tiny-chat', *names, '--max_model_len', str(MAX_MODEL_LEN)) as process:
        yield process


@pytest.fixture(scope='session')
def port(server: ServerProcess) -> str:
    return server.url.rpartition(':')[2]
