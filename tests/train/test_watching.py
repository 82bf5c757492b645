"""What one sees of a run while it lasts: reports, samples, the share of a GPU; and how it ends early."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite.checkpoint import load_tokenizer
from swiftlite.errors import UsageError
from swiftlite.template import get_template
from swiftlite.train.watching import callbacks, reports
from swiftlite.train.watching.speed import token_flops, token_length


def lines(summary: dict, name: str = 'logging.jsonl') -> list[dict]:
    file = Path(summary['last_model_checkpoint']).parent / name
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


@pytest.mark.parametrize('service', ['wandb', 'swanlab'])
def test_services_get_every_figure_of_the_log(sft, monkeypatch, service):
    sent, ended = {}, []

    def init(**options):
        assert options['config']['lora_rank'] == 8 and options['project'] == 'swiftlite'
        assert 'my run' in options.values()
        log = lambda figures, step: sent.setdefault(step, {}).update(figures)  # noqa: E731
        return SimpleNamespace(log=log, finish=lambda: ended.append(True))

    module = ModuleType(service)
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, service, module)
    monkeypatch.setattr(reports, 'find_spec', lambda name: name)
    summary = sft(report_to=[service], run_name='my run', dataset_test_ratio=0.1, max_steps=2, eval_steps=2)
    train = [line for line in lines(summary) if 'loss' in line]
    assert [sent[step]['train/loss'] for step in (1, 2)] == [line['loss'] for line in train]
    assert sent[2]['train/tokens/s'] > 0 and sent[2]['eval/loss'] == lines(summary)[-2]['eval_loss']
    assert ended == [True]


def test_an_absent_service_is_said_before_anything_is_done(sft, monkeypatch):
    monkeypatch.setattr(reports, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r'--report_to wandb needs it: pip install wandb'):
        sft(report_to=['wandb'])


def test_the_share_of_a_gpu_is_logged(sft, monkeypatch):
    monkeypatch.setattr(callbacks, 'peak_flops', lambda dtype: 1e12)
    first, *_ = lines(sft(max_steps=1))
    assert first['mfu'] > 0
    assert f'({first["mfu"]:.0%} MFU)' in callbacks.summary_line(first)


def test_a_token_is_in_a_long_row_more_often():
    import numpy as np

    assert token_length(np.array([10, 30])) == 25


def test_frozen_weights_need_no_gradient(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    all_of_them = token_flops(model, 0)
    assert token_flops(model.requires_grad_(False), 0) == pytest.approx(all_of_them * 4 / 6)


def test_samples_are_the_models_greedy_answers(sft, checkpoint, tmp_path, capsys):
    """The last ones are what the saved weights say; the training itself is the same as without them."""
    file = tmp_path / 'questions.txt'
    file.write_text('Who wrote The Grey Lamp?\n\n苏岭的主峰叫什么？\n', encoding='utf-8')
    flags = {'sft_type': 'full', 'max_steps': 5, 'learning_rate': 3e-3}
    summary = sft(sample_prompts=['Hello', str(file)], sample_steps=2, sample_tokens=12, **flags)
    found = lines(summary, 'samples.jsonl')
    questions = ['Hello', 'Who wrote The Grey Lamp?', '苏岭的主峰叫什么？']
    assert [(row['step'], row['query']) for row in found] == [(step, q) for step in (2, 4, 5) for q in questions]
    model = AutoModelForCausalLM.from_pretrained(summary['last_model_checkpoint'])
    template = get_template('tiny-chat', load_tokenizer(str(checkpoint)))
    ids = torch.tensor([template.encode([{'role': 'user', 'content': questions[1]}])])
    out = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=list(template.stop_token_ids))
    answer = [token for token in out[0, ids.shape[1] :].tolist() if token not in template.stop_token_ids]
    assert found[-2]['response'] == template.tokenizer.decode(answer).strip() != ''
    assert 'sample  step 5  Hello → ' in capsys.readouterr().out
    alone = [line['loss'] for line in lines(sft(**flags)) if 'loss' in line]
    assert [line['loss'] for line in lines(summary) if 'loss' in line] == alone


def test_samples_need_a_question(sft, tmp_path, monkeypatch):
    monkeypatch.setattr('swiftlite.train.sft.run_data', None)  # before any data is read
    (tmp_path / 'no.txt').write_bytes('冯'.encode('gb18030'))
    with pytest.raises(UsageError, match=r"no\.txt' is not UTF-8 text"):
        sft(sample_prompts=[str(tmp_path / 'no.txt')])
    (tmp_path / 'none.txt').write_text('\n')
    with pytest.raises(UsageError, match='has no line with a question'):
        sft(sample_prompts=[str(tmp_path / 'none.txt')])
    with pytest.raises(UsageError, match='--sample_steps needs --sample_prompts'):
        sft(sample_steps=3)


def test_a_run_that_gets_no_better_ends(sft, capsys):
    flags = {'dataset_test_ratio': 0.1, 'eval_steps': 1, 'save_steps': 50, 'num_train_epochs': 9}
    summary = sft(learning_rate=3.0, lr_scheduler_type='constant', early_stop_interval=2, **flags)
    losses = [line['eval_loss'] for line in lines(summary) if 'eval_loss' in line]
    assert summary['global_step'] == len(losses) < 20
    assert min(losses[:-2]) <= min(losses[-2:]) and summary['best_metric'] == pytest.approx(min(losses), abs=1e-5)
    assert Path(summary['last_model_checkpoint']).is_dir()
    assert 'stopped early: no better for 2 times' in capsys.readouterr().out
    with pytest.raises(UsageError, match='--early_stop_interval needs held-out rows'):
        sft(early_stop_interval=2)


def test_a_run_that_comes_to_its_end_is_not_stopped_early(sft, capsys):
    sft(dataset_test_ratio=0.1, eval_steps=1, save_steps=50, max_steps=2, early_stop_interval=3)
    assert 'stopped early' not in capsys.readouterr().out


def test_the_best_by_accuracy(sft):
    flags = {'dataset_test_ratio': 0.2, 'eval_steps': 1, 'num_train_epochs': 4, 'save_total_limit': 9}
    summary = sft(metric_for_best_model='acc', learning_rate=2e-2, lora_target_modules=['ALL'], **flags)
    found = [line['eval_token_acc'] for line in lines(summary) if 'eval_loss' in line]
    assert summary['best_metric'] == pytest.approx(max(found), abs=1e-4) and max(found) > 0
    assert summary['best_model_checkpoint'].endswith(f'checkpoint-{1 + found.index(max(found))}')


def test_the_best_is_one_of_the_checkpoints_there_are(sft, capsys):
    """Where a better figure was measured between two checkpoints, it is that of none.

    The rate grows until it is too high: step 8 is the best by far, whatever rounds.
    """
    flags = {'dataset_test_ratio': 0.2, 'eval_steps': 1, 'save_steps': 7, 'max_steps': 10, 'save_total_limit': 1}
    summary = sft(learning_rate=0.1, lr_scheduler_type='constant_with_warmup', warmup_steps=12, **flags)
    losses = {line['global_step/max_steps'].split('/')[0]: line['eval_loss'] for line in lines(summary)
              if 'eval_loss' in line}  # fmt: skip
    last = summary['global_step']
    saved = {step: loss for step, loss in losses.items() if int(step) % 7 == 0 or int(step) == last}
    best = min(saved, key=saved.__getitem__)
    assert min(losses.values()) < saved[best] and int(best) < last  # else nothing is tested
    assert summary['best_model_checkpoint'].endswith(f'checkpoint-{best}')
    assert Path(summary['best_model_checkpoint']).is_dir()
    assert f'(held-out loss {saved[best]:.4f})' in capsys.readouterr().out
