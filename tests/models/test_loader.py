"""What a checkpoint must hold, and how it is said when it does not."""

import json

import pytest
from safetensors.torch import load_file, save_file

from swiftlite import LLM
from swiftlite.errors import SwiftliteError
from tests.tiny import tiny_qwen2


@pytest.fixture
def checkpoint(tmp_path):
    return tiny_qwen2(tmp_path)


def load(path):
    return LLM(str(path), skip_tokenizer_init=True, num_gpu_blocks_override=16)


def rewrite(path, change):
    tensors = load_file(path / 'model.safetensors')
    change(tensors)
    save_file(tensors, path / 'model.safetensors', {'format': 'pt'})


def test_a_missing_tensor_is_named(checkpoint):
    rewrite(checkpoint, lambda t: t.pop('model.layers.1.mlp.up_proj.weight'))
    with pytest.raises(SwiftliteError, match=r'1 tensor\(s\) missing, first: model.layers.1.mlp.up_proj.weight'):
        load(checkpoint)


def test_a_tensor_of_another_shape_is_named(checkpoint):
    rewrite(checkpoint, lambda t: t.update({'model.norm.weight': t['model.norm.weight'][:5].clone()}))
    with pytest.raises(SwiftliteError, match=r"'model.norm.weight' has shape \[5\], but config.json says \[64\]"):
        load(checkpoint)


def test_a_tensor_that_nobody_reads_is_named(checkpoint):
    rewrite(checkpoint, lambda t: t.update(extra=t['model.norm.weight'].clone()))
    with pytest.raises(SwiftliteError, match=r'1 tensor\(s\) that this architecture does not have, first: extra'):
        load(checkpoint)


def test_another_activation_is_refused(checkpoint):
    config = json.loads((checkpoint / 'config.json').read_text())
    (checkpoint / 'config.json').write_text(json.dumps(config | {'hidden_act': 'gelu'}))
    with pytest.raises(SwiftliteError, match="hidden_act 'gelu' is not supported"):
        load(checkpoint)


def test_random_weights_need_no_tensors(checkpoint):
    (checkpoint / 'model.safetensors').unlink()
    llm = LLM(str(checkpoint), skip_tokenizer_init=True, num_gpu_blocks_override=16, load_format='dummy')
    assert llm.generate([5, 6, 7], use_tqdm=False)[0].finished
