"""From arguments to what runs: adapters, ranks, sampling defaults, and the merge before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from swiftlite.args.deploy import DeployArgs
from swiftlite.args.infer import InferArgs
from swiftlite.checkpoint.config import sampling_defaults
from swiftlite.cli.merge_first import merge_first
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.infer.session import Session
from swiftlite.infer.setup import prepare
from tests.tiny import EXACT, tiny_adapter


@pytest.fixture
def trained(checkpoint: Path, adapter: Path, tmp_path: Path) -> Path:
    """A LoRA checkpoint folder as sft leaves it."""
    folder = tmp_path / 'checkpoint-1'
    shutil.copytree(adapter, folder)
    saved = {'model_id_or_path': str(checkpoint), 'template_type': 'tiny-chat', 'sft_type': 'lora'}
    (folder / 'sft_args.json').write_text(json.dumps(saved))
    return folder


def test_adapters(checkpoint: Path, adapter: Path, trained: Path, tmp_path: Path) -> None:
    wide = tiny_adapter(tmp_path / 'wide', checkpoint, rank=96)
    args = DeployArgs(ckpt_dir=str(trained), lora_modules=[f'a={adapter}', f'wide={wide}'])
    setup = prepare(args)
    assert setup.adapters == {'default-lora': str(trained), 'a': str(adapter), 'wide': str(wide)}
    assert setup.config.enable_lora and setup.config.max_lora_rank == 96
    assert setup.template_type == 'tiny-chat' and setup.config.model == str(checkpoint)
    plain = prepare(DeployArgs(model_id_or_path=str(checkpoint)))
    assert not plain.config.enable_lora and plain.adapters == {}
    assert prepare(DeployArgs(model_id_or_path=str(checkpoint), enable_lora=True)).config.enable_lora
    with pytest.raises(UsageError, match='default-lora'):
        prepare(DeployArgs(ckpt_dir=str(trained), lora_modules=[f'default-lora={adapter}']))
    with pytest.raises(SwiftliteError, match='nowhere'):
        prepare(DeployArgs(model_id_or_path=str(checkpoint), lora_modules=['a=/nowhere']))


def test_sampling_defaults(tmp_path: Path) -> None:
    def read(**config) -> dict:
        (tmp_path / 'generation_config.json').write_text(json.dumps(config))
        return sampling_defaults(str(tmp_path))

    assert sampling_defaults(str(tmp_path)) == {}
    assert read(do_sample=True, temperature=0.7, top_k=20, eos_token_id=1) == {'temperature': 0.7, 'top_k': 20}
    assert read(do_sample=False, temperature=0.7) == {'temperature': 0.0}
    assert read(repetition_penalty=1.1, top_p=None) == {'repetition_penalty': 1.1}


def test_merge_first(trained: Path) -> None:
    """The merged checkpoint is what runs; it is made anew each time, and nothing else is replaced."""
    args = InferArgs(ckpt_dir=str(trained), merge_lora=True, temperature=0.0, max_new_tokens=12, **EXACT)
    assert merge_first(InferArgs(ckpt_dir=str(trained))).ckpt_dir == str(trained)
    merged = merge_first(args)
    assert merged.ckpt_dir == f'{trained}-merged' and not merged.merge_lora
    weights = Path(merged.ckpt_dir, 'model.safetensors')
    first = weights.read_bytes()
    weights.write_bytes(b'stale')
    merge_first(args)
    assert weights.read_bytes() == first

    def answer(options: InferArgs) -> str:
        session = Session(prepare(options), options)
        prompt = session.encode([{'role': 'user', 'content': 'Hello there!'}])
        text = ''.join(delta.text for _, delta in session.answer([prompt]))
        session.close()
        return text

    merge_first(replace(args, system='Be brief.'))
    assert json.loads(Path(merged.ckpt_dir, 'sft_args.json').read_text())['system'] == 'Be brief.'
    assert prepare(merged).adapters == {}
    assert answer(merged) == answer(args)
    shutil.rmtree(merged.ckpt_dir)
    Path(merged.ckpt_dir).mkdir()
    with pytest.raises(UsageError, match='exists'):
        merge_first(args)
