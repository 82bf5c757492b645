"""Weights under native names, whatever the files; Qwen v1 computes what its plain reference does."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swiftlite.checkpoint import fingerprint, iter_tensors, load_tokenizer, native_checkpoint, read_config
from swiftlite.checkpoint.mappings import MAPPINGS
from swiftlite.checkpoint.native import write_shards
from swiftlite.errors import SwiftliteError
from swiftlite.registry.families import FAMILIES
from tests.qwen_v1 import CONFIG, qwen_v1_logits, write_qwen_v1
from tests.tiny import tiny_qwen2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFTLITE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'native'


@pytest.fixture
def qwen_v1(tmp_path, monkeypatch):
    for key in ('eos_token_id', 'pad_token_id'):  # Qwen's own lie beyond a tiny vocabulary
        monkeypatch.setitem(CONFIG, key, 1)
    tensors = write_qwen_v1(tmp_path / 'Qwen-tiny')
    write_tiktoken(tmp_path / 'Qwen-tiny' / 'qwen.tiktoken')
    return tmp_path / 'Qwen-tiny', tensors


def write_tiktoken(file):
    import base64

    file.write_text('\n'.join(f'{base64.b64encode(bytes([b])).decode()} {b}' for b in range(256)))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_files_of_every_kind_hold_the_same(tmp_path):
    tiny_qwen2(tmp_path / 'one', tie_word_embeddings=False)
    weights = load_file(tmp_path / 'one' / 'model.safetensors')
    config = (tmp_path / 'one' / 'config.json').read_text()
    for name in ('shards', 'bin'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'config.json').write_text(config)
    write_shards(iter(weights.items()), tmp_path / 'shards', shard_bytes=40_000)
    torch.save(weights, tmp_path / 'bin' / 'pytorch_model.bin')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 3
    for name in ('one', 'shards', 'bin'):
        assert same(dict(iter_tensors(tmp_path / name)), weights)
    assert len({fingerprint(tmp_path / name) for name in ('one', 'shards', 'bin')}) == 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'shards')
    assert torch.equal(model.model.norm.weight, weights['model.norm.weight'])


def test_fingerprint_tells_models_apart(tmp_path):
    a, b = tiny_qwen2(tmp_path / 'a', seed=0), tiny_qwen2(tmp_path / 'b', seed=1)
    assert fingerprint(a) != fingerprint(b)
    weights = load_file(a / 'model.safetensors')
    before = fingerprint(a)
    weights['model.norm.weight'][0] += 1e-3
    save_file(weights, a / 'model.safetensors', metadata={'format': 'pt'})
    assert fingerprint(a) != before


def test_fingerprint_of_tied_weights_ignores_a_copy_of_the_head(tmp_path):
    folder = tiny_qwen2(tmp_path / 'a', tie_word_embeddings=True)
    before = fingerprint(folder)
    weights = load_file(folder / 'model.safetensors')
    weights['lm_head.weight'] = weights['model.embed_tokens.weight'].clone()
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    assert fingerprint(folder) == before


def test_missing_and_damaged_files(tmp_path):
    folder = tiny_qwen2(tmp_path / 'a')
    file = folder / 'model.safetensors'
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SwiftliteError, match=r'model\.safetensors is damaged'):
        list(iter_tensors(folder))
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'x': 'model-1.safetensors'}}))
    with pytest.raises(SwiftliteError, match=r'names model-1\.safetensors, which is missing'):
        list(iter_tensors(folder))
    (folder / 'model.safetensors.index.json').unlink()
    file.unlink()
    with pytest.raises(SwiftliteError, match='has no weights'):
        list(iter_tensors(folder))


def test_pickled_code_is_not_run(tmp_path):
    folder = tiny_qwen2(tmp_path / 'a')
    (folder / 'model.safetensors').unlink()
    torch.save({'x': pytest.raises}, folder / 'pytorch_model.bin')  # any object beside tensors
    with pytest.raises(SwiftliteError, match='is damaged or not a weight file'):
        list(iter_tensors(folder))


def test_qwen_v1_names_and_rows(qwen_v1):
    folder, upstream = qwen_v1
    native = dict(iter_tensors(folder))
    fused = upstream['transformer.h.1.attn.c_attn.weight']
    for i, part in enumerate(('q_proj', 'k_proj', 'v_proj')):
        assert torch.equal(native[f'model.layers.1.self_attn.{part}.weight'], fused[64 * i : 64 * (i + 1)])
    assert torch.equal(native['model.layers.0.mlp.gate_proj.weight'], upstream['transformer.h.0.mlp.w2.weight'])
    assert torch.equal(native['model.layers.0.mlp.up_proj.weight'], upstream['transformer.h.0.mlp.w1.weight'])
    assert not any('rotary' in name for name in native)
    assert len(native) == 3 + 2 * 12


def test_native_conversion_of_qwen_v1_computes_the_same(qwen_v1, cache):
    folder, upstream = qwen_v1
    converted = native_checkpoint(folder)
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32)
    ids = torch.randint(128, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    assert torch.allclose(logits, qwen_v1_logits(upstream, ids), atol=1e-4)
    assert fingerprint(converted) == fingerprint(folder)
    assert read_config(converted)['seq_length'] == 256
    text = '<|im_start|>user\nh\u00e9 1234<|im_end|><|extra_204|>'
    ids = AutoTokenizer.from_pretrained(converted).encode(text)
    assert ids == load_tokenizer(folder).encode(text) == load_tokenizer(converted).encode(text)
    assert (ids[0], ids[-1]) == (257, 463)


def test_conversion_is_cached_by_content(qwen_v1, cache):
    folder, _ = qwen_v1
    first = native_checkpoint(folder)
    stamp = (cache.iterdir().__next__() / 'model.safetensors').stat().st_mtime_ns
    assert native_checkpoint(folder) == first
    assert (cache.iterdir().__next__() / 'model.safetensors').stat().st_mtime_ns == stamp
    write_qwen_v1(folder, seed=5)
    second = native_checkpoint(folder)
    assert second != first
    assert len(list(cache.iterdir())) == 2


def test_an_interrupted_conversion_leaves_nothing(qwen_v1, cache, monkeypatch):
    folder, _ = qwen_v1
    monkeypatch.setattr('swiftlite.checkpoint.native.write_config', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        native_checkpoint(folder)
    assert list(cache.iterdir()) == []


def test_a_native_checkpoint_is_used_in_place(tmp_path):
    assert native_checkpoint(tiny_qwen2(tmp_path / 'a')) == str(tmp_path / 'a')


def test_names_unknown_to_the_layout_are_errors(qwen_v1):
    folder, _ = qwen_v1
    save_file({'transformer.h.0.attn.extra.weight': torch.zeros(2)}, folder / 'model-00001-of-00002.safetensors')
    with pytest.raises(SwiftliteError, match=r'transformer\.h\.0\.attn\.extra\.weight, which a QWenLMHeadModel'):
        list(iter_tensors(folder))


def test_the_registry_and_the_mappings_agree():
    for family in FAMILIES.values():
        mapping = MAPPINGS[family.mapping] if family.mapping else None
        assert mapping is None or (mapping.architecture, mapping.native) == (family.architecture, family.native)
    assert {family.mapping for family in FAMILIES.values() if family.mapping} == set(MAPPINGS)


@pytest.mark.parametrize('mapping', MAPPINGS.values(), ids=MAPPINGS)
def test_rules_read_the_same_in_both_directions(mapping):
    for rule in mapping.rules:
        source = rule.source.replace('{n}', '7')
        for i, target in enumerate(mapping.modules(source)):
            assert mapping.upstream(target) == (source, i, len(rule.targets))
    assert mapping.modules('transformer.nothing') is None
