"""Models that train on the kernels, beside the same models as transformers and peft run them."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from swiftlite.registry.families import FAMILIES
from swiftlite.train.model import fused_lora
from swiftlite.train.model.attention import install_attention
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.loss import install_loss
from tests.tiny import randomize

LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
KINDS = {'all': LINEAR, 'some': ['q_proj', 'gate_proj', 'down_proj'], 'full': None}
TYPES = sorted({family.hf_model_type for family in FAMILIES.values() if family.native == family.architecture})


def make(hf_type='qwen2', targets=LINEAR, dtype=torch.float32, **lora):
    """A tiny model of odd sizes; its adapter, if any, says something."""
    settings = {'vocab_size': 131, 'hidden_size': 48, 'intermediate_size': 88, 'num_hidden_layers': 2, 'head_dim': 12}
    settings |= {'num_attention_heads': 6, 'num_key_value_heads': 2, 'max_position_embeddings': 64}
    if hf_type in ('qwen2', 'llama', 'mistral'):
        settings |= {'head_dim': 8}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(hf_type, **settings))
    randomize(model, 0)
    model.to(dtype)
    if targets is not None:
        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=3, lora_alpha=4, target_modules=targets, **lora))
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                nn.init.normal_(parameter, std=0.2)
    install_attention(base(model))
    install_loss(base(model))
    return model.train()


def base(model):
    return model.get_base_model() if hasattr(model, 'get_base_model') else model


def batch(vocabulary=131):
    """Two rows end to end, the first half of each not learnt."""
    torch.manual_seed(2)
    ids = torch.randint(vocabulary, (1, 16))
    lengths = [9, 7]
    positions = torch.tensor([4, 5, 6, 7, 12, 13, 14])
    return {
        'input_ids': ids, 'positions': positions, 'targets': ids[0, positions + 1], 'lengths': lengths,
        'position_ids': torch.cat([torch.arange(n) for n in lengths])[None],
        'cu_seqlens': torch.tensor([0, 9, 16], dtype=torch.int32),
    }  # fmt: skip


def learn(model, **inputs):
    """(loss, gradients by name)."""
    loss = model(**(inputs or batch()))['loss_sum']
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(plain, kernels, tolerance=1e-5):
    (loss, grads), (found, others) = plain, kernels
    assert torch.allclose(found, loss, rtol=tolerance)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        assert (others[name] - grad).norm() <= tolerance * grad.norm(), name


def recompute(model):
    model.gradient_checkpointing_enable({'use_reentrant': False})


@pytest.fixture
def fusions(monkeypatch):
    """How often the fused MLP and projections ran."""
    seen = {'mlp': 0, 'project': 0}
    for name in seen:
        inner = getattr(fused_lora, name)

        def counted(*args, name=name, inner=inner):
            seen[name] += 1
            return inner(*args)

        monkeypatch.setattr(fused_lora, name, counted)
    return seen


@pytest.mark.parametrize('checkpointing', [False, True], ids=['', 'checkpointing'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('hf_type', TYPES)
@pytest.mark.filterwarnings('ignore:.*checkpointing.*:FutureWarning')
def test_every_family_learns_the_same(hf_type, kind, checkpointing, fusions):
    plain = make(hf_type, KINDS[kind])
    kernels = copy.deepcopy(plain)
    assert install_kernels(kernels) == []
    for model in (plain, kernels):
        if checkpointing:
            recompute(model)
    assert_same(learn(plain), learn(kernels))
    # two layers of q, k, v together, o and the MLP, which are computed twice under checkpointing
    times = 2 if kind != 'full' else 0
    assert fusions == {'mlp': times * (1 + checkpointing), 'project': 2 * times * (1 + checkpointing)}


@pytest.mark.filterwarnings('ignore:.*checkpointing.*:FutureWarning')
def test_checkpointing_computes_no_down_layer_again(monkeypatch):
    """A checkpointed layer is computed again up to the activation before its down layer."""
    calls = []
    inner = fused_lora.Down.forward
    monkeypatch.setattr(fused_lora.Down, 'forward', staticmethod(lambda *args: calls.append(1) or inner(*args)))
    model = make()
    install_kernels(model)
    recompute(model)
    learn(model)
    assert len(calls) == 2


def test_padded_batches_and_generation():
    """Rows side by side with a mask, and text with a cache: what is not covered takes transformers' way."""
    plain = make()
    kernels = copy.deepcopy(plain)
    install_kernels(kernels)
    torch.manual_seed(3)
    ids = torch.randint(131, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    outs = [model(input_ids=ids, attention_mask=mask).logits[mask.bool()] for model in (plain, kernels)]
    assert torch.allclose(*outs, rtol=1e-4, atol=1e-4)
    options = {'max_new_tokens': 5, 'do_sample': False, 'pad_token_id': 0}
    texts = [model.eval().generate(input_ids=ids, **options) for model in (plain, kernels)]
    assert torch.equal(*texts)


@pytest.mark.filterwarnings('ignore:.lora_bias=True. was passed')
@pytest.mark.parametrize(
    'tuner', [{'use_dora': True}, {'lora_bias': True}, {'bias': 'all'}, {'layers_to_transform': [1]}], ids=str
)
def test_other_tuners_take_their_own_way(tuner):
    plain = make(**tuner)
    kernels = copy.deepcopy(plain)
    install_kernels(kernels)
    assert_same(learn(plain), learn(kernels))


def test_adapters_switched_off_merged_or_many(fusions):
    model = make()
    install_kernels(model)
    inputs = {'input_ids': batch()['input_ids']}
    with torch.no_grad():
        on = model(**inputs).logits
        with model.disable_adapter():
            off = model(**inputs).logits
        model.merge_adapter()
        merged = model(**inputs).logits
        model.unmerge_adapter()
        model.base_model.set_adapter('default')
        bare = base(make(targets=None))(**inputs).logits
    assert fusions['mlp'] == 6
    assert torch.allclose(on, merged, atol=1e-3)
    assert torch.allclose(off, bare, atol=1e-3)
    assert not torch.allclose(on, off, atol=1e-2)
    model.add_adapter('other', LoraConfig(r=2, target_modules=LINEAR))
    model.base_model.set_adapter(['default', 'other'])
    assert torch.allclose(model(**inputs).logits, on, atol=1e-3)  # the other adapter says nothing yet
    assert fusions['mlp'] == 6  # and it was not the kernels' business


def test_hooks_are_called():
    """A hook on a projection sees its input, so that one is not fused."""
    model = make()
    install_kernels(model)
    seen = []
    base(model).model.layers[0].mlp.up_proj.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    learn(model)
    assert seen == [(1, 16, 48)]


@pytest.mark.filterwarnings('ignore:.*checkpointing.*:FutureWarning')
def test_dropout_repeats_with_the_seed_and_under_checkpointing():
    inputs, found = batch(), []
    for seed, checkpointing in ((5, False), (5, True), (6, True)):
        model = make(lora_dropout=0.4)
        install_kernels(model)
        if checkpointing:
            recompute(model)
        torch.manual_seed(seed)
        found.append(learn(model, **inputs))
    assert_same(*found[:2])
    assert not torch.allclose(found[2][0], found[0][0])
    quiet = make(lora_dropout=0.0)
    assert torch.allclose(learn(model.eval(), **inputs)[0], learn(quiet, **inputs)[0])


@pytest.mark.parametrize('kind', ['all', 'full'])
def test_bf16(kind):
    """Both are as far from fp32: a LoRA over a bf16 base, and fp32 weights under autocast."""
    exact = learn(make(targets=KINDS[kind]))
    dtype = torch.bfloat16 if kind == 'all' else torch.float32
    plain = make(targets=KINDS[kind], dtype=dtype)
    kernels = copy.deepcopy(plain)
    install_kernels(kernels)
    errors = []
    for model in (plain, kernels):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            _, grads = learn(model)
        assert all(grad.dtype == torch.float32 for grad in grads.values())
        size = sum(g.square().sum() for g in exact[1].values()).sqrt()
        away = sum((grads[n].float() - g).square().sum() for n, g in exact[1].items()).sqrt()
        errors.append(away / size)
    assert errors[1] < 1.2 * errors[0]


def test_unknown_layers_are_named():
    config = AutoConfig.for_model(
        'gpt2', vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    (line,) = install_kernels(AutoModelForCausalLM.from_config(config))
    assert 'GPT2LMHeadModel' in line


def test_another_activation_keeps_its_mlp():
    plain = make('llama')
    for module in plain.modules():
        if hasattr(module, 'act_fn'):
            module.act_fn = nn.GELU()
    base(plain).config.hidden_act = 'gelu'
    kernels = copy.deepcopy(plain)
    assert install_kernels(kernels) == ['LlamaMLP: its activation is gelu, not silu']
    assert_same(learn(plain), learn(kernels))


def test_installing_twice_changes_nothing():
    model = make()
    install_kernels(model)
    classes = [type(module) for module in model.modules()]
    install_kernels(model)
    assert [type(module) for module in model.modules()] == classes


@pytest.mark.parametrize('wanted', [True, None])
def test_the_flag(sft, monkeypatch, wanted):
    """On a CPU the kernels are used where they are asked for, on a GPU by themselves; the run is the same."""
    installed = []
    monkeypatch.setattr(
        'swiftlite.train.model.make.install_kernels', lambda model: installed.append(1) or install_kernels(model)
    )
    flags = {'lora_target_modules': ['ALL'], 'max_steps': 2, 'learning_rate': 1e-3}
    found = sft(use_kernels=wanted, **flags)['train_loss']
    assert bool(installed) == (wanted or torch.cuda.is_available())
    assert found == pytest.approx(sft(use_kernels=False, **flags)['train_loss'], rel=1e-5)


def two_processes():
    """What each of two processes runs: the gradients of both are averaged."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group('gloo')
    model = make()
    install_kernels(model)
    wrapped = DistributedDataParallel(model)
    rank = dist.get_rank()
    rows = batch()
    half = slice(0, 4) if rank == 0 else slice(4, 7)
    rows['positions'], rows['targets'] = rows['positions'][half], rows['targets'][half]
    learn(wrapped, **rows)
    _, alone = learn(make())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (2 * parameter.grad - alone[name]).norm() <= 1e-5 * alone[name].norm(), name
    dist.destroy_process_group()


def test_ddp():
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / 'kernels'), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone', '-m']
    command += ['tests.train.test_kernels']
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == 0, done.stderr


if __name__ == '__main__':
    two_processes()
