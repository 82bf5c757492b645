"""--deepspeed: its configuration, and two processes under it that compute what copies of the model do."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swiftlite.args.sft import SftArgs
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.train import resume
from swiftlite.train.model.make import load_model
from swiftlite.train.scale import deepspeed
from swiftlite.train.scale.deepspeed import deepspeed_config, spread, stage_of
from swiftlite.train.scale.memory import estimate
from tests.train.test_distributed import FULL, LORA, assert_same, log_of

installed = pytest.mark.skipif(find_spec('deepspeed') is None, reason="needs 'swiftlite[deepspeed]'")
AUTO = {'train_batch_size': 'auto', 'gradient_clipping': 'auto'}


@pytest.fixture
def config(monkeypatch, tmp_path):
    """The configuration that a file gives, as if DeepSpeed were installed."""
    monkeypatch.setattr(deepspeed, 'find_spec', lambda name: name)

    def read(content, dtype=torch.bfloat16):
        file = tmp_path / 'own.json'
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return deepspeed_config(str(file), dtype)

    return read


def test_it_is_an_extra(monkeypatch):
    monkeypatch.setattr(deepspeed, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r"--deepspeed needs DeepSpeed: pip install 'swiftlite\[deepspeed\]'"):
        deepspeed_config('zero2', torch.bfloat16)


def test_a_stage_is_named(config):
    found = deepspeed_config('zero3_offload', torch.bfloat16)
    assert found['zero_optimization']['stage'] == 3 and found['bf16']['enabled'] and not found['fp16']['enabled']
    assert found['zero_optimization']['offload_param']['device'] == 'cpu'
    assert deepspeed_config('zero0', torch.float32)['zero_optimization']['stage'] == 0


def test_a_file_is_taken_as_it_is(config):
    """Where it says 'auto', flags say it; weights of stage 3 are gathered to be saved."""
    found = config(
        {
            **AUTO,
            'bf16': {'enabled': 'auto'},
            'fp16': {'enabled': 'auto', 'loss_scale_window': 500},
            'optimizer': {'type': 'AdamW', 'params': {'lr': 'auto', 'betas': 'auto', 'torch_adam': True}},
            'scheduler': {'type': 'WarmupLR', 'params': {'warmup_num_steps': 'auto'}},
            'zero_optimization': {'stage': 3, 'reduce_bucket_size': 'auto'},
        }
    )
    assert found['zero_optimization'] == {'stage': 3, 'reduce_bucket_size': 'auto', deepspeed.GATHER: True}
    assert found['bf16'] == {'enabled': True} and found['fp16'] == {'enabled': False, 'loss_scale_window': 500}
    assert 'optimizer' not in found and 'scheduler' not in found  # the run's own are used
    assert found['zero_force_ds_cpu_optimizer'] is False


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        ('[1]', 'holds no JSON object'),
        ('{', 'is no JSON'),
        ({'train_batch_size': 64}, 'has train_batch_size 64: write "auto" there and give --batch_size'),
        ({'gradient_clipping': 0.5}, 'give --max_grad_norm'),
        ({'optimizer': {'type': 'Adam', 'params': {'lr': 1e-5}}}, "a section 'optimizer' with lr 1e-05: leave it out"),
        ({'optimizer': {'type': 'AdamW', 'params': {'weight_decay': 0}}}, "a section 'optimizer' with weight_decay 0"),
        ({'optimizer': {'type': 'Lion', 'params': {'lr': 'auto'}}}, "the optimizer Lion, and the training's is AdamW"),
        ({'optimizer': 'AdamW'}, "optimizer must be a JSON object, as must its params, not 'AdamW'"),
        ({'optimizer': {'params': [1]}}, 'optimizer must be a JSON object, as must its params'),
        ({'bf16': True}, 'bf16 must be a JSON object'),
        ({'zero_optimization': True}, 'zero_optimization must be a JSON object'),
        ({'zero_optimization': {'stage': 'auto'}}, "stage of zero_optimization must be 0, 1, 2 or 3, not 'auto'"),
        ({'fp16': {'enabled': True}}, 'has fp16 true, and the training is in bfloat16'),
        ({'zero_optimization': {'stage': 3, deepspeed.GATHER: False}}, 'would hold no weights to serve'),
    ],
)
def test_what_a_file_cannot_say(config, content, says):
    with pytest.raises(UsageError, match=says):
        config(content)


def test_a_file_is_told_from_a_stage(config, monkeypatch, tmp_path):
    """zero2.json is a name for one."""
    (tmp_path / 'zero2.json').write_text('{"zero_optimization": {"stage": 1}}')
    monkeypatch.chdir(tmp_path)
    assert stage_of(deepspeed_config('zero2.json', torch.bfloat16)) == 1


def test_memory_is_that_of_the_stage(config, checkpoint):
    model = load_model(str(checkpoint), torch.float32)
    plain = estimate(model, 64, torch.bfloat16)
    count = sum(p.numel() for p in model.parameters())

    def held(name):
        needs = spread(plain, model, deepspeed_config(name, torch.bfloat16), torch.bfloat16, 4)
        return needs.weights, needs.gradients, needs.optimizer

    assert held('zero0') == (2 * count, 2 * count, 12 * count)
    assert held('zero1') == (2 * count, 2 * count, 3 * count)
    assert held('zero2') == (2 * count, count // 2, 3 * count)
    assert held('zero3') == (count // 2, count // 2, 3 * count)
    assert held('zero2_offload') == (2 * count, 0, 0)
    assert held('zero3_offload') == (0, 0, 0)


@pytest.mark.parametrize(
    ('before', 'given', 'says'),
    [
        ('zero2', None, 'was trained with --deepspeed zero2: go on so; --resume_only_model true'),
        (None, 'zero2', 'was trained without --deepspeed: go on so'),
        ('zero2', 'zero3', 'was trained with --deepspeed zero2'),
        ('zero3', 'zero3', "DeepSpeed's states of 3 processes: set NPROC_PER_NODE=3"),
    ],
)
def test_other_shares_do_not_go_on(monkeypatch, tmp_path, before, given, says):
    folder = tmp_path / 'checkpoint-1'
    (folder / 'global_step1').mkdir(parents=True)
    for rank in range(3):
        (folder / 'global_step1' / f'bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt').touch()
    args = SftArgs(
        model_type='tiny-chat', dataset=['x'], deepspeed=given, resume_from_checkpoint=str(folder), report_to=['none']
    )
    monkeypatch.setattr(resume, 'world_size', lambda: 2)
    with pytest.raises(UsageError, match=says):
        resume.check_shares(folder, before, args)
    monkeypatch.setattr(resume, 'world_size', lambda: 3)
    resume.check_shares(folder, given, args)


@pytest.mark.parametrize('shared', [True, False])
def test_a_checkpoint_without_its_states_is_not_whole(tmp_path, shared):
    args = SftArgs(model_type='tiny-chat', dataset=['x'], report_to=['none'])
    (tmp_path / 'adapter_model.safetensors').touch()
    if shared:
        (tmp_path / 'latest').touch()
    with pytest.raises(SwiftliteError, match=f'has no {"scheduler.pt" if shared else "optimizer.pt"}'):
        resume.check_readable(tmp_path, args)


@installed
@pytest.mark.parametrize('stage', ['zero2', 'zero3'])
def test_all_weights_equal_one_process(sft, two, stage):
    """Accumulated, with a last window that is not full; tied embeddings are saved once, and what is held out counts."""
    flags = {**FULL, 'dataset_test_ratio': 0.1, 'eval_steps': 1}
    alone = Path(sft(batch_size=8, gradient_accumulation_steps=1, **flags)['last_model_checkpoint'])
    shared, _ = two(stage, deepspeed=stage, batch_size=2, gradient_accumulation_steps=2, **flags)
    assert_same(alone, shared)
    evals = [[line for line in log_of(f.parent) if 'eval_loss' in line][-1] for f in (alone, shared)]
    assert evals[0]['eval_loss'] == pytest.approx(evals[1]['eval_loss'], rel=1e-6)
    assert 'lm_head.weight' not in load_file(shared / 'model.safetensors')


@installed
@pytest.mark.parametrize('tuner', [{'deepspeed': 'zero2'}, {'deepspeed': 'zero3', 'init_lora_weights': 'pissa'}])
def test_an_adapter_goes_on(sft, two, tuner):
    """Stage 2; and stage 3 over a base that the adapter took its start from."""
    plain = {key: value for key, value in tuner.items() if key != 'deepspeed'}
    alone = Path(sft(batch_size=8, gradient_accumulation_steps=1, **LORA, **plain)['last_model_checkpoint'])
    whole, _ = two('whole', **LORA, **tuner)
    assert_same(alone, whole)
    again, _ = two('again', **LORA, **tuner, resume_from_checkpoint=whole.parent / 'checkpoint-1')
    assert_same(alone, again, range(1, 3))
