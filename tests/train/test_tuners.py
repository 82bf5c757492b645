"""Every tuner trains, goes on bitwise from a checkpoint, and is merged and served as the model that was trained."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from swiftlite import LLM, LoRARequest, SamplingParams
from swiftlite.args.export import ExportArgs
from swiftlite.args.infer import InferArgs
from swiftlite.checkpoint import read_adapter, read_config
from swiftlite.cli.merge_first import merge_first
from swiftlite.cli.parse import parse
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.export import merge
from swiftlite.infer.setup import prepare
from swiftlite.train import sft as module
from swiftlite.train.model.noise import add_noise
from swiftlite.train.model.quantized import keep_as_they_are
from swiftlite.train.model.tuners import freeze, parameter_groups
from tests.tiny import EXACT, tiny_model

NEEDED = "4 bits need bitsandbytes: pip install 'swiftlite[qlora]'"
IDS = torch.arange(60).reshape(2, 30)
ALL = {'lora_target_modules': ['ALL'], 'lora_rank': 4}
TUNERS = {
    'lora': ALL,
    'rslora': {**ALL, 'use_rslora': True},
    'dora': {**ALL, 'use_dora': True, 'lora_dropout': 0.1},
    'lora-plus': {**ALL, 'lora_lr_ratio': 16.0, 'learning_rate': 1e-3},
    'pissa': {**ALL, 'init_lora_weights': 'pissa'},
    'pissa-niter': {'init_lora_weights': 'pissa_niter_4', 'lora_dropout': 0.1},
    'pissa-dora-rslora': {**ALL, 'init_lora_weights': 'pissa', 'use_dora': True, 'use_rslora': True},
    'olora': {**ALL, 'init_lora_weights': 'olora'},
    'gaussian': {'init_lora_weights': 'Gaussian', 'neftune_noise_alpha': 5.0},
    'whole': {'modules_to_save': ['embed_tokens', 'norm']},
    'whole-kernels': {'modules_to_save': ['embed_tokens', 'norm', 'input_layernorm'], 'use_kernels': True},
    'dora-kernels': {**ALL, 'use_dora': True, 'neftune_noise_alpha': 5.0, 'use_kernels': True},
    'pissa-packed': {**ALL, 'init_lora_weights': 'pissa', 'use_kernels': True, 'packing': True, 'max_length': 200},
    'regex': {'target_regex': r'model\.layers\.1\.(self_attn|mlp)\..*'},
    'frozen': {'sft_type': 'full', 'freeze_parameters': ['model.embed_tokens'], 'learning_rate': 1e-3},
}
FOUR_BITS = {
    'qlora': {**ALL, 'quantization_bit': 4},
    'qlora-kernels': {**ALL, 'quantization_bit': 4, 'use_kernels': True},
    'qlora-dora': {'use_dora': True, 'quantization_bit': 4, 'bnb_4bit_quant_type': 'fp4'},
    'qlora-single': {'quantization_bit': 4, 'bnb_4bit_use_double_quant': False, 'modules_to_save': ['norm']},
}


@pytest.fixture
def kept(monkeypatch):
    """The trainers of the runs of a test."""
    trainers, finish = [], module.finish
    monkeypatch.setattr(module, 'finish', lambda trainer, *a, **k: trainers.append(trainer) or finish(trainer, *a, **k))
    return trainers


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS.to(model.device)).logits.cpu()


def load(folder, **options) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    name = 'adapter_model.safetensors' if (checkpoint / 'adapter_config.json').is_file() else 'model.safetensors'
    return load_file(checkpoint / name)


def goes_on(sft, last: Path, flags) -> None:
    """From checkpoint 2 to the very bits of checkpoint 4."""
    again = sft(max_steps=4, resume_from_checkpoint=str(last.parent / 'checkpoint-2'), **flags)
    found, wanted = weights(Path(again['last_model_checkpoint'])), weights(last)
    assert found.keys() == wanted.keys()
    assert [name for name in found if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize('name', TUNERS)
def test_merged_is_what_was_trained(name, sft, kept, checkpoint):
    flags = TUNERS[name]
    last = Path(sft(max_steps=4, save_steps=2, **flags)['last_model_checkpoint'])
    trained, before = logits(kept[0].model), logits(load(checkpoint))
    assert (trained - before).abs().max() > 1e-2
    if 'sft_type' in flags:
        merged = last
    else:
        merged = Path(merge.run(ExportArgs(ckpt_dir=str(last), merge_lora=True)))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)
            tuned = logits(PeftModel.from_pretrained(load(checkpoint), last))  # the base as it always was
        assert (tuned - trained).abs().max() < 1e-4 * trained.abs().max()
    assert (logits(load(merged)) - trained).abs().max() < 1e-4 * trained.abs().max()
    goes_on(sft, last, flags)


@pytest.mark.parametrize('name', FOUR_BITS)
def test_four_bits(name, sft, kept, checkpoint, capsys):
    """Trained over the quantized base; the adapter is merged into, and served over, the base as it was."""
    pytest.importorskip('bitsandbytes', reason=NEEDED)
    flags = FOUR_BITS[name]
    last = Path(sft(max_steps=4, save_steps=2, **flags)['last_model_checkpoint'])
    model = kept[0].model
    assert model.get_submodule('base_model.model.model.layers.0.mlp.up_proj').weight.dtype == torch.uint8
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=flags.get('bnb_4bit_quant_type', 'nf4'),
        bnb_4bit_use_double_quant=flags.get('bnb_4bit_use_double_quant', True),
        bnb_4bit_compute_dtype=torch.float32,
    )
    trained = logits(model)
    base = load(checkpoint, quantization_config=quantized, device_map={'': model.device})
    keep_as_they_are(base)
    assert (logits(PeftModel.from_pretrained(base, last)) - trained).abs().max() < 1e-4 * trained.abs().max()
    tuned = logits(PeftModel.from_pretrained(load(checkpoint), last))
    assert (tuned - logits(load(checkpoint))).abs().max() > 1e-2
    assert 'served and merged over the model as it was' in capsys.readouterr().out
    merged = Path(merge.run(ExportArgs(ckpt_dir=str(last), merge_lora=True, verify=True)))
    assert 'same next token at 100.0%' in capsys.readouterr().out
    assert (logits(load(merged)) - tuned).abs().max() < 1e-4 * tuned.abs().max()
    assert 'quantization_config' not in json.loads((merged / 'config.json').read_text())
    goes_on(sft, last, flags)


def test_the_model_is_described(sft, checkpoint, capsys):
    """With the size that it stands for, not the size that it is packed to."""
    pytest.importorskip('bitsandbytes', reason=NEEDED)
    sft(max_steps=1, use_dora=True, lora_rank=2, modules_to_save=['norm'], quantization_bit=4)
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('model: '))
    assert said.endswith('trained (DoRA, rank 2, q_proj k_proj v_proj, whole: norm, over nf4); float32')
    total, trained = (int(text.replace(',', '')) for text in re.findall(r'[\d,]{3,}', said)[:2])
    assert total == sum(parameter.numel() for parameter in load(checkpoint).parameters()) + trained


def test_b_learns_faster_in_lora_plus(sft, kept):
    sft(max_steps=1, lora_lr_ratio=16.0, learning_rate=1e-3, use_dora=True, weight_decay=0.1)
    groups = [
        (group['initial_lr'], group['weight_decay'], len(group['params'])) for group in kept[0].optimizer.param_groups
    ]
    assert groups == [(1e-3, 0.0, 6), (1e-3, 0.1, 6), (16e-3, 0.1, 6)], 'magnitudes, A, B of 2 layers'


def test_groups_hold_every_trained_parameter_once():
    model = torch.nn.ModuleDict(
        {'lora_A': torch.nn.Linear(2, 3), 'x': torch.nn.ModuleDict({'lora_B': torch.nn.Linear(3, 2)})}
    )
    model['lora_A'].bias.requires_grad_(False)
    groups = parameter_groups(list(model.named_parameters()), ['x.lora_B.weight'], 1.0, 4.0, 0.5)
    shown = [([p.shape for p in group['params']], group['lr'], group['weight_decay']) for group in groups]
    assert shown == [([(3, 2)], 1.0, 0.0), ([(2,)], 4.0, 0.0), ([(2, 3)], 4.0, 0.5)]


def test_noise_has_the_size_of_the_paper_and_is_off_in_evaluation(tmp_path):
    """alpha / sqrt(L H) for each row, also where rows of unequal length are packed."""
    model = load(tiny_model(tmp_path, 'qwen2', hidden_size=32, intermediate_size=48))
    ids, positions = torch.arange(40)[None], torch.cat([torch.arange(4), torch.arange(36)])[None]
    plain = model.get_input_embeddings().weight[ids[0]].detach()
    add_noise(model, 5.0)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()[0] - plain))
    model.train()(input_ids=ids, position_ids=positions)
    model(input_ids=ids)
    model.eval()(input_ids=ids)
    packed, alone, still = seen
    for noise, length in ((packed[:4], 4), (packed[4:], 36), (alone, 40)):
        limit = 5 / (length * 32) ** 0.5
        assert 0.9 * limit < noise.abs().max() <= limit
        assert abs(noise.mean()) < 0.2 * limit
    assert still.abs().max() == 0


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ({'lora_target_modules': ['q_prj']}, r"'q_prj' is no linear layer; valid are DEFAULT, .*; did you mean 'q_p"),
        ({'lora_target_modules': ['layers.7.self_attn.q_proj']}, r"is no linear layer; .*'model.layers.1.self_attn.q"),
        ({'lora_target_modules': ['(q|k)_proj']}, r'no linear layer: it must fit whole names, from model.layers.0'),
        ({'target_regex': 'q_proj'}, r"fits no linear layer: .*did you mean '\.\*q_proj'"),
        ({'target_regex': '(q_proj'}, r"'\(q_proj' is no pattern: "),
        ({'modules_to_save': ['embed_token']}, r"'embed_token' is no module; .*; did you mean 'embed_tokens'"),
        ({'modules_to_save': ['layers.9.input_layernorm']}, r'is no module of the model'),
        ({'modules_to_save': ['q_proj']}, r"'q_proj' has an adapter already"),
        ({'modules_to_save': ['o_proj'], 'quantization_bit': 4}, r"'o_proj' is held in 4 bits"),
        ({'init_lora_weights': 'pissa', 'lora_rank': 17}, r'--lora_rank 17 is above the 16 that model.layers.0'),
        ({'sft_type': 'full', 'freeze_parameters': ['embed_tokens']}, r"'embed_tokens' starts the name of no par"),
        ({'sft_type': 'full', 'freeze_parameters_ratio': 1.0}, r'every parameter is frozen'),
    ],
)  # fmt: skip
def test_what_fits_nothing_is_refused(sft, flags, said):
    with pytest.raises(UsageError, match=said):
        sft(max_steps=1, **flags)


def test_patterns_choose_layers(sft, checkpoint):
    last = sft(max_steps=1, lora_target_modules=[r'.*\.1\..*(q|v)_proj', 'down_proj'])['last_model_checkpoint']
    assert sorted(read_adapter(last, read_config(checkpoint)).modules) == [
        'model.layers.0.mlp.down_proj',
        'model.layers.1.mlp.down_proj',
        'model.layers.1.self_attn.q_proj',
        'model.layers.1.self_attn.v_proj',
    ]


def test_frozen_from_the_input(tmp_path):
    model = load(tiny_model(tmp_path, 'qwen2', hidden_size=32, intermediate_size=48))
    freeze(model, [], 0.5, ['model.layers.0.self_attn.q_proj'])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert 'model.embed_tokens.weight' not in trained and 'model.layers.0.mlp.up_proj.weight' not in trained
    assert 'model.layers.0.self_attn.q_proj.weight' in trained and 'lm_head.weight' in trained
    total = sum(parameter.numel() for parameter in model.parameters())
    left = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    assert 0.3 < left / total <= 0.5
    freeze(model, [], 0.0, [])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_start_is_not_gone_on_from(sft):
    last = sft(max_steps=1, init_lora_weights='pissa')['last_model_checkpoint']
    for flags, said in (
        ({}, '--init_lora_weights pissa'),
        ({'init_lora_weights': 'pissa', 'use_dora': True}, '--use_dora'),
    ):
        with pytest.raises(UsageError, match=f'was trained with {said}'):
            sft(max_steps=2, resume_from_checkpoint=last, **flags)


def test_four_bits_need_bitsandbytes(sft, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SwiftliteError, match=r"needs bitsandbytes: pip install 'swiftlite\[qlora\]'"):
        sft(quantization_bit=4)


@pytest.mark.parametrize('name', ['pissa', 'qlora', 'lora-plus', 'gaussian'])
def test_served_beside_the_base_it_answers_as_merged(name, sft, checkpoint):
    if name in FOUR_BITS:
        pytest.importorskip('bitsandbytes', reason=NEEDED)
    flags = {'learning_rate': 1e-2, **(TUNERS | FOUR_BITS)[name]}
    last = sft(max_steps=6, **flags)['last_model_checkpoint']
    merged = merge.run(ExportArgs(ckpt_dir=last, merge_lora=True))
    greedy = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompts = [{'prompt_token_ids': list(range(start, start + 9))} for start in (5, 300, 4000)]

    def answers(folder, lora=None):
        llm = LLM(str(folder), enable_lora=lora is not None, max_model_len=64, **EXACT)
        return [out.outputs[0].token_ids for out in llm.generate(prompts, greedy, use_tqdm=False, lora_request=lora)]

    tuned = answers(checkpoint, LoRARequest(name, 1, last))
    assert tuned == answers(merged) != answers(checkpoint)


@pytest.mark.parametrize('flags', [{'use_dora': True}, {'modules_to_save': ['norm']}, {}])
def test_what_is_not_served_beside_the_base_is_merged_first(sft, flags, capsys):
    """It is refused with the command that merges it, and the commands that are printed do it."""
    last = sft(max_steps=1, **flags)['last_model_checkpoint']
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith('  swiftlite')]
    assert [line[1] for line in lines] == (['export', 'infer', 'deploy'] if flags else ['infer', 'export', 'deploy'])
    args = parse(InferArgs, ['--ckpt_dir', last], 'infer')
    if not flags:
        assert prepare(args).adapters
        return
    with pytest.raises(SwiftliteError, match=r'not served beside the base: merge it with swiftlite export --ckpt_dir'):
        prepare(args)
    setup = prepare(merge_first(parse(InferArgs, ['--ckpt_dir', last, '--merge_lora', 'true'], 'infer')))
    assert (setup.config.model, setup.adapters) == (f'{last}-merged', {})
    assert lines[1][-1] == lines[2][-1] == f'{last}-merged'
