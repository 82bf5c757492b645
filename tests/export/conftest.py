"""A LoRA checkpoint as sft writes it, over a tiny random base with tiny-chat's tokenizer."""

import json
import shutil
from pathlib import Path

import pytest

import swiftlite
from swiftlite.args.export import ExportArgs
from swiftlite.checkpoint import fingerprint
from tests.tiny import tiny_adapter, tiny_qwen2

ASSETS = Path(swiftlite.__file__).parent / 'assets'


@pytest.fixture(scope='session')
def base(tmp_path_factory) -> Path:
    folder = tiny_qwen2(
        tmp_path_factory.mktemp('merge') / 'base', vocab_size=8192, tie_word_embeddings=True, eos_token_id=8189
    )
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copy(ASSETS / 'tiny-chat' / name, folder)
    return folder


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    folder = tiny_adapter(tmp_path / 'checkpoint-5', base)
    args = {
        'model_type': None,
        'model_id_or_path': str(base),
        'template_type': 'tiny-chat',
        'sft_type': 'lora',
        'base_fingerprint': fingerprint(base),
    }
    (folder / 'sft_args.json').write_text(json.dumps(args))
    return folder


@pytest.fixture
def merge():
    from swiftlite.export.merge import run

    def start(adapter: Path, **flags) -> Path:
        return Path(run(ExportArgs(ckpt_dir=str(adapter), merge_lora=True, **flags)))

    return start
