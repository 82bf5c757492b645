"""What training computes does not depend on how a batch is cut, and a run goes on where it stopped."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from swiftlite.train.checkpoints import MASTER
from swiftlite.train.trainer import SftTrainer


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder.parent / 'logging.jsonl').read_text().splitlines()]
    return [line['loss'] for line in lines if 'loss' in line]


def weights(summary: dict) -> dict[str, torch.Tensor]:
    folder = Path(summary['last_model_checkpoint'])
    return load_file(next(file for name in (MASTER, 'adapter_model.safetensors', 'model.safetensors')
                          if (file := folder / name).is_file()))  # fmt: skip


def assert_same(a: dict, b: dict, atol: float) -> None:
    assert losses(Path(a['last_model_checkpoint'])) == pytest.approx(losses(Path(b['last_model_checkpoint'])), abs=1e-5)
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.allclose(left[name], right[name], atol=atol), name


@pytest.mark.parametrize('kind', ['lora', 'full'])
def test_accumulation_changes_nothing(sft, kind):
    """8 x 1 = 1 x 8 although rows differ in length; 22 rows leave a last window of 6. Plain SGD would be exact; AdamW
    amplifies rounding where gradients are tiny, hence the large epsilon-free tolerance on weights."""
    whole = sft(sft_type=kind, batch_size=8, gradient_accumulation_steps=1, learning_rate=1e-3)
    parts = sft(sft_type=kind, batch_size=1, gradient_accumulation_steps=8, learning_rate=1e-3)
    assert whole['global_step'] == parts['global_step'] == 3
    assert losses(Path(whole['last_model_checkpoint'])) != losses(Path(whole['last_model_checkpoint']))[::-1]
    assert_same(whole, parts, atol=2e-4)


@pytest.mark.parametrize('flags', [{}, {'sft_type': 'full'}, {'lora_dropout': 0.3}], ids=['lora', 'full', 'dropout'])
def test_resuming_equals_going_on(sft, flags):
    flags = {'num_train_epochs': 3, 'save_steps': 4, 'save_total_limit': 5, **flags}  # 9 steps; 4 is inside epoch 2
    whole = sft(**flags)
    resumed = sft(**flags, resume_from_checkpoint=str(Path(whole['last_model_checkpoint']).parent / 'checkpoint-4'))
    assert whole['global_step'] == resumed['global_step'] == 9
    assert losses(Path(whole['last_model_checkpoint']))[4:] == losses(Path(resumed['last_model_checkpoint']))
    left, right = weights(whole), weights(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns(sft):
    summary = sft(sft_type='full', num_train_epochs=12)
    curve = losses(Path(summary['last_model_checkpoint']))
    assert curve[-1] < 0.25 * curve[0]


def test_held_out_loss_weighs_tokens(sft, data):
    """Two rows in one batch or alone: the same held-out loss."""
    flags = {'val_dataset': [f'{data}#7'], 'learning_rate': 1e-9}
    metrics = [sft(eval_batch_size=size, **flags)['best_metric'] for size in (7, 1)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-4)


def test_many_held_out_tokens_are_all_counted():
    """fp32 counts no further than 2^24 one by one."""
    parts = [{'targets': torch.zeros(size, dtype=torch.int8)} for size in (2**24, *[1] * 2000)]

    class Model(torch.nn.Module):
        def forward(self, targets):
            count = targets.numel()
            return {'loss_sum': torch.tensor(float(count)), 'correct': torch.tensor(count if count > 1 else 0)}

    trainer = SimpleNamespace(
        args=SimpleNamespace(device='cpu', world_size=1), model=Model(), is_deepspeed_enabled=False, state=None,
        control=None, get_eval_dataloader=lambda rows: [{'passes': parts}], _equal_passes=lambda batches: 0,
        _prepare_inputs=lambda part: part, log=lambda figures: None,
        callback_handler=SimpleNamespace(on_evaluate=lambda *_: None),
    )  # fmt: skip
    found = SftTrainer.evaluate(trainer)
    assert found['eval_loss'] == pytest.approx(1, abs=1e-12)
    assert found['eval_token_acc'] == pytest.approx(2**24 / (2**24 + 2000), abs=1e-9)
