"""Two processes compute what one does, with a copy of the weights each or with shares of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swiftlite.errors import UsageError
from tests.train.gpu_files import write_as_gpu

# 22 rows: two global batches of 8 rows and one of 6. AdamW divides by gradients that are rounded; epsilon tames that
SAME = {'learning_rate': 1e-3, 'adam_epsilon': 1e-2, 'save_steps': 1, 'save_total_limit': 9, 'logging_steps': 1}
LORA = {'lora_dropout': 0.0, 'lora_target_modules': ['ALL'], **SAME}
FULL = {'sft_type': 'full', **SAME}


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'logging.jsonl').read_text().splitlines()]


def assert_same(one: Path, two: Path, steps: range = range(3)) -> None:
    """Losses to 1e-6 of themselves, weights to 1e-6."""
    logs = [[line for line in log_of(folder.parent) if 'loss' in line] for folder in (one, two)]
    by_step = [{line['global_step/max_steps']: line for line in log} for log in logs]
    for step in steps:
        left, right = (log[f'{step + 1}/3'] for log in by_step)
        assert left['loss'] == pytest.approx(right['loss'], rel=1e-6)
        assert left['token_acc'] == right['token_acc']
        assert left['grad_norm'] == pytest.approx(right['grad_norm'], abs=2e-4)
    name = 'model.safetensors' if (one / 'model.safetensors').is_file() else 'adapter_model.safetensors'
    left, right = (load_file(folder / name) for folder in (one, two))
    assert left.keys() == right.keys()
    for key in left:
        assert torch.allclose(left[key], right[key], atol=1e-6, rtol=0), key


def test_copies_equal_one_process(sft, two):
    """8 x 1 = 1 x 8 = 2 processes of 4 x 1, a last global batch that is not full included; held-out figures too.

    A checkpoint of two processes goes on in one.
    """
    flags = {**LORA, 'dataset_test_ratio': 0.0}
    alone = Path(sft(batch_size=8, gradient_accumulation_steps=1, **flags)['last_model_checkpoint'])
    parts = Path(sft(batch_size=1, gradient_accumulation_steps=8, **flags)['last_model_checkpoint'])
    assert_same(alone, parts)
    together, said = two('copies', **LORA)
    assert said.count('training data:') == said.count('last checkpoint:') == 1
    assert_same(alone, together)
    ends = [log_of(folder.parent)[-1] for folder in (alone, together)]
    assert ends[0]['tokens'] == ends[1]['tokens']
    assert ends[0]['train_loss'] == pytest.approx(ends[1]['train_loss'], rel=1e-6)
    again = sft(batch_size=8, gradient_accumulation_steps=1, **flags,
                resume_from_checkpoint=str(together.parent / 'checkpoint-1'))  # fmt: skip
    assert_same(alone, Path(again['last_model_checkpoint']), range(1, 3))


@pytest.mark.parametrize('start', ['true', 'pissa'])
def test_shares_of_an_adapter_go_on_from_one_process(sft, two, start):
    """FSDP2: from a checkpoint that one process wrote on a GPU, to the same weights; held-out rows 3, not 2 x 2.

    PiSSA takes a part out of the base before that is shared out.
    """
    flags = {**LORA, 'dataset_test_ratio': 0.1, 'eval_steps': 1, 'init_lora_weights': start}
    alone = Path(sft(batch_size=8, gradient_accumulation_steps=1, **flags)['last_model_checkpoint'])
    write_as_gpu(alone.parent / 'checkpoint-1')
    shared, said = two('shares', fsdp='full_shard', resume_from_checkpoint=alone.parent / 'checkpoint-1', **flags)
    assert 'tensors are shared out to 2 processes' in said
    assert_same(alone, shared, range(1, 3))
    evals = [[line for line in log_of(f.parent) if 'eval_loss' in line][-1] for f in (alone, shared)]
    assert evals[0]['eval_loss'] == pytest.approx(evals[1]['eval_loss'], rel=1e-6)
    assert evals[0]['eval_token_acc'] == evals[1]['eval_token_acc']


def test_shares_of_all_weights_equal_one_process(sft, two):
    """FSDP2 over every weight, tied embeddings too, with layers computed twice; one process goes on from there."""
    alone = Path(sft(batch_size=8, gradient_accumulation_steps=1, **FULL)['last_model_checkpoint'])
    flags = {'fsdp': ['shard_grad_op'], 'gradient_checkpointing': True, 'sample_prompts': 'Who?', 'sample_tokens': 3}
    shared, said = two('full', **FULL, **flags)
    assert 'tensors are shared out to 2 processes' in said
    assert_same(alone, shared)
    assert said.count('sample  step 3') == 1
    again = sft(batch_size=8, gradient_accumulation_steps=1, **FULL,
                resume_from_checkpoint=str(shared.parent / 'checkpoint-2'))  # fmt: skip
    assert_same(alone, Path(again['last_model_checkpoint']), range(2, 3))


@pytest.mark.parametrize(
    ('flags', 'says'),
    [
        ({'fsdp': ['full_shard']}, '--fsdp shares weights out to several processes: set NPROC_PER_NODE=2'),
        ({'fsdp': ['offload']}, "--fsdp offload moves weights from GPUs to the CPU's memory, and there is no GPU"),
        ({'fsdp': ['full_shard', 'shard_grad_op']}, '--fsdp takes one of full_shard and shard_grad_op, not both'),
        ({'fsdp': ['true'], 'deepspeed': 'zero2'}, 'give one'),
        ({'deepspeed': 'zero4'}, "--deepspeed takes .* or a JSON file, not 'zero4'; did you mean"),
    ],
)
def test_what_cannot_be_shared_out_is_one_sentence(sft, monkeypatch, flags, says):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UsageError, match=says):
        sft(**flags)


def test_more_processes_than_gpus(sft, monkeypatch):
    for name, value in (('WORLD_SIZE', '4'), ('LOCAL_WORLD_SIZE', '4'), ('LOCAL_RANK', '0'), ('RANK', '0')):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UsageError, match=r'^4 processes need a GPU each: set NPROC_PER_NODE=2, or show them'):
        sft()


def test_one_process_that_is_told_of_several(sft, monkeypatch):
    """As in a pod whose WORLD_SIZE is the number of pods."""
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UsageError, match='WORLD_SIZE is 2, but this is no process of several: set NPROC_PER_NODE and'):
        sft()
