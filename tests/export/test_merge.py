"""Merged weights are W + s B A, in a complete checkpoint that replaces nothing silently."""

import json
import shlex

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swiftlite.checkpoint import LoRAWeights, native, native_checkpoint, read_adapter, read_config
from swiftlite.checkpoint.native import write_shards
from swiftlite.errors import SwiftliteError, UsageError
from tests.qwen_v1 import CONFIG, write_qwen_v1
from tests.tiny import tiny_adapter, tiny_qwen2

IDS = torch.arange(60).reshape(2, 30)


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


def test_merged_logits_equal_the_adapters(base, adapter, merge):
    folder = merge(adapter)
    assert folder.name == 'checkpoint-5-merged'
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = logits(plain)
    tuned = logits(PeftModel.from_pretrained(plain, adapter))
    merged = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert (merged - tuned).abs().max() < 1e-5 * tuned.abs().max()
    assert (tuned - before).abs().max() > 1e-2


@pytest.mark.filterwarnings('ignore:.*save_embedding_layers')
@pytest.mark.parametrize(
    'options',
    [
        {'use_dora': True},
        {'use_dora': True, 'use_rslora': True, 'rank_pattern': {'q_proj': 2}},
        {'modules_to_save': ['norm']},
        {'modules_to_save': ['embed_tokens'], 'ensure_weight_tying': True},
        {'targets': ['embed_tokens', 'q_proj'], 'ensure_weight_tying': True},
    ],
    ids=['dora', 'dora-rslora', 'norms', 'tied embeddings', 'tied adapters'],
)
def test_more_than_a_lora_is_merged_exactly(base, tmp_path, merge, options, capsys):
    adapter = tiny_adapter(tmp_path / 'checkpoint-1', base, **options)
    if 'targets' in options:  # one pair for both
        file = adapter / 'adapter_model.safetensors'
        tensors = {k: v.clone() for k, v in load_file(file).items()}
        for mine, other in ('AB', 'BA'):
            pair = tensors[f'base_model.model.model.embed_tokens.lora_embedding_{mine}']
            tensors[f'base_model.model.lm_head.lora_{other}.weight'] = pair.t().contiguous()
        save_file(tensors, file)
    folder = merge(adapter, model_id_or_path=str(base), template_type='tiny-chat', verify=True)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = logits(PeftModel.from_pretrained(plain, adapter))
    merged = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert (merged - tuned).abs().max() < 1e-5 * tuned.abs().max()
    assert 'same next token at 100.0%' in capsys.readouterr().out


@pytest.mark.filterwarnings('ignore:.*save_embedding_layers')
@pytest.mark.parametrize('options', [{'modules_to_save': ['embed_tokens']}, {'targets': ['embed_tokens']}])
def test_half_of_what_is_tied_cannot_be_merged(base, tmp_path, merge, options):
    adapter = tiny_adapter(tmp_path / 'checkpoint-1', base, ensure_weight_tying=True, **options)
    file = adapter / 'adapter_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'ensure_weight_tying': False}))
    with pytest.raises(SwiftliteError, match=r'embed_tokens.weight alone, but embeddings and output layer of'):
        merge(adapter, model_id_or_path=str(base), template_type='tiny-chat')
    assert not (tmp_path / 'checkpoint-1-merged').exists()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('suffix', ['safetensors', 'bin'])
def test_every_tensor(base, adapter, merge, tmp_path, dtype, suffix):
    """Several shards; adapted weights rounded once from fp32, all others bit for bit."""
    weights = {name: tensor.to(dtype) for name, tensor in load_file(base / 'model.safetensors').items()}
    sharded = tmp_path / 'sharded'
    sharded.mkdir()
    for file in base.iterdir():
        if file.suffix == '.json':
            (sharded / file.name).write_bytes(file.read_bytes())
    if suffix == 'safetensors':
        write_shards(iter(weights.items()), sharded, shard_bytes=300_000)
    else:
        torch.save(weights, sharded / 'pytorch_model.bin')
    (adapter / 'sft_args.json').unlink()
    folder = merge(adapter, model_id_or_path=str(sharded), template_type='tiny-chat')
    found = {name: t for file in folder.glob('*.safetensors') for name, t in load_file(file).items()}
    modules = read_adapter(adapter).modules
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        w = modules.get(name.removesuffix('.weight')) if name.endswith('.weight') else None
        wanted = tensor if w is None else (tensor.float() + w.scaling * w.b @ w.a).to(dtype)
        assert torch.equal(found[name], wanted), name
        assert found[name].dtype == dtype
    assert len(modules) == 14


def test_the_folder_is_complete(base, adapter, merge):
    folder = merge(adapter)
    assert json.loads((folder / 'config.json').read_text()) == json.loads((base / 'config.json').read_text())
    saved = json.loads((folder / 'sft_args.json').read_text())
    assert (saved['sft_type'], saved['template_type'], saved['merged_from']) == ('full', 'tiny-chat', str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode('hello 你好') == AutoTokenizer.from_pretrained(base).encode('hello 你好')
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    assert (folder / 'generation_config.json').is_file()
    assert (folder / 'model.safetensors').stat().st_mode == (folder / 'config.json').stat().st_mode
    assert not [file for file in folder.parent.iterdir() if file.name.startswith('.')]


def test_a_folder_is_replaced_only_on_demand(base, adapter, merge, tmp_path):
    folder = merge(adapter)
    (folder / 'mark').write_text('')
    with pytest.raises(UsageError, match='exists: give --overwrite true'):
        merge(adapter)
    assert (folder / 'mark').exists()
    assert merge(adapter, overwrite=True) == folder
    assert not (folder / 'mark').exists()
    (tmp_path / 'papers').mkdir()
    (tmp_path / 'papers' / 'thesis').write_text('')
    with pytest.raises(UsageError, match='is no checkpoint and is not replaced'):
        merge(adapter, output_dir=str(tmp_path / 'papers'), overwrite=True)
    with pytest.raises(UsageError, match='holds what is merged'):
        merge(adapter, output_dir=str(adapter), overwrite=True)
    with pytest.raises(UsageError, match='holds what is merged'):
        merge(adapter, output_dir=str(base.parent), overwrite=True)


def test_a_typed_system_prompt_goes_into_the_merged_checkpoint(adapter, merge):
    file = adapter / 'sft_args.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'system': 'Be kind.'}))
    assert json.loads((merge(adapter) / 'sft_args.json').read_text())['system'] == 'Be kind.'
    folder = merge(adapter, system='Be brief.', overwrite=True)
    assert json.loads((folder / 'sft_args.json').read_text())['system'] == 'Be brief.'


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(adapter, merge, monkeypatch, tmp_path, capsys):
    def full(*_, **__):
        raise SafetensorError('I/O error: No space left on device')

    target = tmp_path / 'my models' / 'merged'
    with monkeypatch.context() as patch:
        patch.setattr(native, 'save_file', full)
        with pytest.raises(SwiftliteError, match=r'cannot be written: .*No space left on device'):
            merge(adapter, output_dir=str(target))
    assert list(target.parent.iterdir()) == []
    merge(adapter, output_dir=str(target))
    assert shlex.split(capsys.readouterr().out.splitlines()[-1]) == ['swiftlite', 'deploy', '--ckpt_dir', str(target)]


def test_a_wrong_base_is_refused(adapter, merge, tmp_path):
    """Another base of the same shape: only the fingerprint tells."""
    other = tiny_qwen2(tmp_path / 'other', seed=9, vocab_size=8192, tie_word_embeddings=True)
    with pytest.raises(SwiftliteError, match='was trained on another model'):
        merge(adapter, model_id_or_path=str(other))
    narrow = tiny_qwen2(tmp_path / 'narrow', hidden_size=32, vocab_size=8192)
    (adapter / 'sft_args.json').unlink()
    with pytest.raises(SwiftliteError, match='it was trained on another model'):
        merge(adapter, model_id_or_path=str(narrow))
    assert sorted(file.name for file in tmp_path.iterdir()) == ['checkpoint-5', 'narrow', 'other']


def test_a_merge_that_changes_nothing_fails(adapter, merge, tmp_path):
    file = adapter / 'adapter_model.safetensors'
    save_file({name: t * 0 if 'lora_B' in name else t for name, t in load_file(file).items()}, file)
    with pytest.raises(SwiftliteError, match='changes no weight'):
        merge(adapter)
    assert [file.name for file in tmp_path.iterdir()] == ['checkpoint-5']


def test_sums_beyond_the_dtype_fail(adapter, merge, capsys):
    file = adapter / 'adapter_model.safetensors'
    save_file({name: t * 1e25 for name, t in load_file(file).items()}, file)
    with pytest.raises(SwiftliteError, match='too large for float32'):
        merge(adapter)


def test_whole_weights_and_quantized_bases_are_refused(base, adapter, merge, tmp_path):
    with pytest.raises(UsageError, match='holds whole weights'):
        merge(base)
    config = json.loads((base / 'config.json').read_text())
    (tmp_path / 'quantized').mkdir()
    (tmp_path / 'quantized' / 'config.json').write_text(json.dumps({**config, 'quantization_config': {'bits': 4}}))
    with pytest.raises(SwiftliteError, match='is quantized'):
        merge(adapter, model_id_or_path=str(tmp_path / 'quantized'))


def test_verify_prints_the_gap(adapter, merge, capsys):
    merge(adapter, verify=True)
    out = capsys.readouterr().out
    assert 'verify: logit gap between merged and adapter max' in out
    assert 'same next token at 100.0%' in out


def test_verify_fails_a_wrong_merge(adapter, merge, monkeypatch, tmp_path):
    monkeypatch.setattr(LoRAWeights, 'merged', lambda self, weight: weight.float() - self.scaling * self.b @ self.a)
    with pytest.raises(SwiftliteError, match='the merged model is wrong'):
        merge(adapter, verify=True)
    assert not (tmp_path / 'checkpoint-5-merged').exists()


def test_qwen_v1_comes_out_native(merge, tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFTLITE_CACHE', str(tmp_path / 'cache'))
    for key, value in (('vocab_size', 512), ('eos_token_id', 1), ('pad_token_id', 1)):
        monkeypatch.setitem(CONFIG, key, value)
    base = tmp_path / 'Qwen-7B-Chat'
    write_qwen_v1(base)
    import base64

    (base / 'qwen.tiktoken').write_text('\n'.join(f'{base64.b64encode(bytes([b])).decode()} {b}' for b in range(256)))
    (base / 'generation_config.json').write_text('{"chat_format": "chatml", "eos_token_id": 1}')
    converted = native_checkpoint(base)
    adapter = tiny_adapter(tmp_path / 'adapter', converted)
    folder = merge(adapter, model_id_or_path=str(base), verify=True)
    assert read_config(folder)['architectures'] == ['Qwen2ForCausalLM']
    tuned = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(converted), adapter))
    merged = logits(AutoModelForCausalLM.from_pretrained(folder))
    assert (merged - tuned).abs().max() < 1e-5 * tuned.abs().max()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{'role': 'user', 'content': 'hi'}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n'
        '<|im_start|>assistant\n'
    )
    assert json.loads((folder / 'generation_config.json').read_text())['chat_format'] == 'chatml'
