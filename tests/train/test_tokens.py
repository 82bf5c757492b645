"""Tokens that the model did not have: trained, merged, and served by the engine."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swiftlite import LLM, SamplingParams
from swiftlite.args.export import ExportArgs
from swiftlite.args.infer import InferArgs
from swiftlite.args.sft import SftArgs
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.export.merge import run as export
from swiftlite.infer.setup import prepare
from tests.tiny import EXACT, tiny_qwen2

NEW = ['<plan>', '</plan>']


@pytest.fixture
def plans(tmp_path):
    rows = [{'query': f'Plan {i}', 'response': f'<plan>step {i}</plan>done'} for i in range(8)]
    file = tmp_path / 'plans.jsonl'
    file.write_text('\n'.join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture(params=['tied', 'untied', 'spare rows'])
def base(request, checkpoint, tmp_path):
    if request.param == 'tied':
        return checkpoint
    size = {'untied': 8192, 'spare rows': 8256}[request.param]
    folder = tiny_qwen2(tmp_path / 'other', vocab_size=size, hidden_size=32, intermediate_size=48, eos_token_id=8189)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    return folder


def test_new_tokens_are_trained_merged_and_served(sft, plans, base, tmp_path, capsys):
    flags = {'dataset': [plans], 'new_special_tokens': NEW, 'model_id_or_path': str(base), 'num_train_epochs': 3}
    last = Path(sft(**flags)['last_model_checkpoint'])
    said = capsys.readouterr().out
    commands = said.partition('next:\n')[2].splitlines()
    assert '--merge_lora true' in commands[0] and f'infer --ckpt_dir {last}-merged' in commands[1]
    tokenizer = AutoTokenizer.from_pretrained(last)
    first = len(tokenizer) - 2
    assert tokenizer.convert_tokens_to_ids(NEW) == [first, first + 1] and f'ids {first} to {first + 1}' in said
    assert len(tokenizer.encode('<plan>a</plan>')) < 5
    config = json.loads((base / 'config.json').read_text())
    rows = max(config['vocab_size'], len(tokenizer))
    weights = load_file(last / 'adapter_model.safetensors')
    embed = next(tensor for name, tensor in weights.items() if 'embed_tokens' in name)
    assert embed.shape[0] == rows and not torch.equal(embed[first], embed[first + 1]), 'both were trained'

    with pytest.raises(SwiftliteError, match=r'modules_to_save.*--merge_lora true'):
        prepare(InferArgs(ckpt_dir=str(last)))
    merged = export(ExportArgs(ckpt_dir=str(last), merge_lora=True, verify=True))
    assert 'verify: logit gap' in capsys.readouterr().out
    saved = json.loads(Path(merged, 'config.json').read_text())
    assert saved['vocab_size'] == rows
    assert AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids(NEW) == [first, first + 1]
    model, found = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32, output_loading_info=True)
    assert not found['mismatched_keys'] and not found['missing_keys']

    ids = tokenizer.encode('Plan 3 <plan>step </plan>')
    llm = LLM(model=merged, **EXACT)
    (out,) = llm.generate(
        {'prompt_token_ids': ids}, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=1)
    )
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    best = out.outputs[0].token_ids[0]
    assert best == int(logits.argmax())
    assert out.outputs[0].logprobs[0][best].logprob == pytest.approx(float(logits[best]), abs=1e-4)


def test_full_training_saves_them(sft, plans, checkpoint):
    last = Path(sft(sft_type='full', dataset=[plans], new_special_tokens=NEW, max_steps=1)['last_model_checkpoint'])
    tokenizer = AutoTokenizer.from_pretrained(last)
    assert tokenizer.encode('</plan>') == [len(tokenizer) - 1]
    config = json.loads((last / 'config.json').read_text())
    assert (
        load_file(last / 'model.safetensors')['model.embed_tokens.weight'].shape[0]
        == config['vocab_size']
        >= len(tokenizer)
    )
    with pytest.raises(UsageError, match='was trained with --new_special_tokens <plan> </plan>'):
        sft(sft_type='full', dataset=[plans], max_steps=2, resume_from_checkpoint=str(last))
    sft(sft_type='full', dataset=[plans], max_steps=2, new_special_tokens=NEW, resume_from_checkpoint=str(last))


def test_new_rows_start_as_the_mean(checkpoint):
    from swiftlite.checkpoint import load_tokenizer
    from swiftlite.train.model.tokens import add_tokens, make_room

    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32), load_tokenizer(checkpoint)
    before = model.get_input_embeddings().weight.detach().clone()
    add_tokens(tokenizer, NEW)
    make_room(model, tokenizer, 2)
    after = model.get_input_embeddings().weight
    first = len(tokenizer) - 2
    assert torch.equal(after[:first], before[:first])
    assert torch.allclose(after[first:], before[:first].mean(0).expand(2, -1)) and len(after) == len(tokenizer)


def test_names_of_tokens(sft, tmp_path, plans):
    (tmp_path / 'new.txt').write_text('<a>\n\n<b>\n')
    args = SftArgs(dataset=['x'], new_special_tokens=['<c>', str(tmp_path / 'new.txt')])
    assert args.new_special_tokens == ['<c>', '<a>', '<b>']
    for given, said in ((['<a>', '<a>'], "'<a>' is there twice"), ([' '], 'is empty'), (['no.txt'], 'cannot be read')):
        with pytest.raises(UsageError, match=said):
            SftArgs(dataset=['x'], new_special_tokens=given)
    with pytest.raises(UsageError, match=r"'<\|im_end\|>' is a token of the model already \(id \d+\)"):
        sft(dataset=[plans], new_special_tokens=['<|im_end|>'])


def test_new_tokens_are_not_frozen(sft, plans):
    flags = {'sft_type': 'full', 'dataset': [plans], 'new_special_tokens': NEW, 'max_steps': 1}
    with pytest.raises(UsageError, match='--new_special_tokens are rows of the embeddings, which stay as they are'):
        sft(freeze_parameters_ratio=0.95, **flags)
    assert sft(freeze_parameters_ratio=0.95, trainable_parameters=['model.embed_tokens'], **flags)['global_step'] == 1
