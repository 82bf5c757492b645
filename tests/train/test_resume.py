"""A run that was killed goes on as if it had not been; a checkpoint is whole or not there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.train import checkpoints
from swiftlite.train.resume import trim_log
from tests.train.gpu_files import write_as_gpu

ROOT = Path(__file__).parents[2]
# 20 rows, 3 steps an epoch of 4 x 2 rows with a last one of 4; no step of a checkpoint is one of the log
FLAGS = {'num_train_epochs': 4, 'save_steps': 5, 'logging_steps': 3, 'lora_dropout': 0.3, 'dataset_test_ratio': 0.1,
         'add_output_dir_suffix': False, 'eval_steps': 4, 'save_total_limit': None}  # fmt: skip
TIMES = ('elapsed_time', 'remaining_time', 'train_speed(iter/s)', 'tokens/s', 'memory(GiB)', 'eval_runtime', 'mfu')


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / 'logging.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def assert_equal(one: Path, two: Path, step: int) -> None:
    """The same log, weights and optimizer, bit for bit."""
    assert lines(one)[:-1] == lines(two)[:-1]
    end, other = lines(one)[-1], lines(two)[-1]
    assert all(end[name] == other[name] for name in ('train_loss', 'tokens', 'best_metric', 'global_step'))
    for name in ('adapter_model.safetensors', 'model.safetensors'):
        if (one / f'checkpoint-{step}' / name).is_file():
            left, right = (load_file(folder / f'checkpoint-{step}' / name) for folder in (one, two))
            assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    files = [folder / f'checkpoint-{step}' / 'optimizer.pt' for folder in (one, two)]
    left, right = (torch.load(file, map_location='cpu')['state'] for file in files)
    assert all(torch.equal(left[i][key], right[i][key]) for i in left for key in left[i])


def test_killed_and_gone_on_equals_never_stopped(sft, checkpoint, data, tmp_path):
    """kill -9 after a checkpoint inside an epoch, then --resume_from_checkpoint last in the same folder."""
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    sft(**FLAGS, output_dir=str(whole))
    flags = {**FLAGS, 'output_dir': cut, 'dataset': data, 'model': checkpoint, 'template_type': 'tiny-chat',
             'dtype': 'fp32', 'batch_size': 4, 'gradient_accumulation_steps': 2, 'learning_rate': 1e-2,
             'report_to': 'none', 'save_total_limit': 9, 'sample_prompts': 'hi', 'sample_steps': 1}  # fmt: skip
    words = [word for name, value in flags.items() for word in (f'--{name}', str(value))]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'kernels')]), 'OMP_NUM_THREADS': '1'}
    running = subprocess.Popen([sys.executable, '-m', 'swiftlite', 'sft', *words], env=env, stdout=subprocess.DEVNULL)
    try:
        for _ in range(60000):
            if (cut / 'checkpoint-5').is_dir() or running.poll() is not None:
                break
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    finally:
        running.wait(60)
    assert (cut / 'checkpoint-5').is_dir() and not (cut / 'checkpoint-12').exists()
    with (cut / 'logging.jsonl').open('a') as stream:
        stream.write('{"loss": 1.5, "global')
    sft(**FLAGS, output_dir=str(cut), resume_from_checkpoint='last')
    assert_equal(whole, cut, 12)


def test_what_another_device_wrote_is_gone_on_from(sft, tmp_path):
    """States that were on a GPU, of fp16 and with its random numbers, go on where there is none."""
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    for folder in (whole, cut):
        sft(**FLAGS, output_dir=str(folder))
    shutil.rmtree(cut / 'checkpoint-12')
    shutil.rmtree(cut / 'checkpoint-10')
    write_as_gpu(cut / 'checkpoint-5')
    with pytest.raises(RuntimeError, match='CUDA') if not torch.cuda.is_available() else nullcontext():
        torch.load(cut / 'checkpoint-5' / 'optimizer.pt')
    sft(**FLAGS, output_dir=str(cut), resume_from_checkpoint='last')
    assert_equal(whole, cut, 12)


def test_random_numbers_of_a_gpu():
    """Each process takes those of its own GPU, also where there are more processes a machine, or fewer, than before."""
    states = [torch.tensor([i], dtype=torch.uint8) for i in range(2)]
    assert [int(checkpoints.gpu_state(states, index)) for index in range(4)] == [0, 1, 0, 1]
    assert checkpoints.gpu_state(states[1], 3) is states[1]
    assert checkpoints.gpu_state(None, 0) is checkpoints.gpu_state([], 0) is None


def test_full_weights_go_on_bitwise_and_auto_starts_anew(sft, tmp_path):
    flags = {**FLAGS, 'sft_type': 'full'}
    del flags['lora_dropout']
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    sft(**flags, output_dir=str(whole))
    sft(**flags, output_dir=str(cut), resume_from_checkpoint='auto')
    shutil.rmtree(cut / 'checkpoint-12')
    shutil.rmtree(cut / 'checkpoint-10')
    sft(**flags, output_dir=str(cut), resume_from_checkpoint='auto')
    assert_equal(whole, cut, 12)


def test_the_newest_whole_checkpoint_is_taken(sft, tmp_path, capsys):
    flags = {'num_train_epochs': 2, 'save_steps': 2, 'save_total_limit': 9}
    with pytest.raises(UsageError, match='last finds no whole checkpoint in'):
        sft(**flags, resume_from_checkpoint='last')
    first = Path(sft(**flags)['last_model_checkpoint']).parent
    file = first / 'checkpoint-6' / 'adapter_model.safetensors'
    file.write_bytes(file.read_bytes()[:-9])
    shutil.copytree(first / 'checkpoint-6', first / 'checkpoint-7.part')
    (first / 'checkpoint-2').rename(first / 'checkpoint-3')
    again = Path(sft(**{**flags, 'save_steps': 5, 'save_total_limit': 2}, resume_from_checkpoint='true')
                 ['last_model_checkpoint'])  # fmt: skip
    assert {path.name for path in first.glob('checkpoint-*')} == {'checkpoint-5', 'checkpoint-6'}
    assert again == first / 'checkpoint-6' and load_file(again / 'adapter_model.safetensors')
    out = capsys.readouterr().out
    assert f'going on from {first / "checkpoint-4"}' in out and 'note: left out' in out


def test_a_crash_while_writing_keeps_the_checkpoint_before(sft, tmp_path, monkeypatch):
    flags = {'num_train_epochs': 2, 'save_steps': 2, 'save_total_limit': 1}
    write = checkpoints.Checkpoints._save_optimizer_and_scheduler

    def broken(self, folder):
        if self.state.global_step == 4:
            raise OSError(28, 'No space left on device')
        write(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, '_save_optimizer_and_scheduler', broken)
        with pytest.raises(SwiftliteError, match='No space left on device'):
            sft(**flags)
    (folder,) = (tmp_path / 'output' / 'tiny').iterdir()
    assert sorted(path.name for path in folder.glob('checkpoint-*')) == ['checkpoint-2', 'checkpoint-4.part']
    last = Path(sft(**flags, resume_from_checkpoint='last')['last_model_checkpoint'])
    assert sorted(path.name for path in folder.glob('checkpoint-*')) == [last.name] == ['checkpoint-6']


def test_weights_only(sft):
    first = Path(sft(max_steps=2)['last_model_checkpoint'])
    again = Path(sft(max_steps=1, learning_rate=1e-12, resume_from_checkpoint=str(first), resume_only_model=True)
                 ['last_model_checkpoint'])  # fmt: skip
    assert again.name == 'checkpoint-1' and again.parent != first.parent
    left, right = (load_file(folder / 'adapter_model.safetensors') for folder in (first, again))
    assert all(torch.allclose(left[name], right[name], atol=1e-9) for name in left)


def test_another_number_of_rows_a_step_is_refused(sft):
    last = sft(max_steps=1)['last_model_checkpoint']
    with pytest.raises(UsageError, match=r'with 8 rows a step, not 2: give --gradient_accumulation_steps 4'):
        sft(max_steps=2, resume_from_checkpoint=last, batch_size=2, gradient_accumulation_steps=1)


def test_other_steps_of_the_log_count_after_going_on(sft):
    """What says when to log and save is the command, not the checkpoint."""
    last = sft(max_steps=2, logging_steps=1)['last_model_checkpoint']
    again = Path(sft(max_steps=6, logging_steps=2, save_steps=3, save_total_limit=9, resume_from_checkpoint=last)
                 ['last_model_checkpoint'])  # fmt: skip
    assert [line['global_step/max_steps'] for line in lines(again.parent)[:-1]] == ['4/6', '6/6']
    assert {path.name for path in again.parent.glob('checkpoint-*')} == {'checkpoint-3', 'checkpoint-6'}


def test_lines_of_later_steps_are_taken_out(tmp_path):
    file = tmp_path / 'logging.jsonl'
    kept = [{'loss': 1, 'global_step/max_steps': f'{n}/9'} for n in (1, 2)]
    later = [{'loss': 1, 'global_step/max_steps': '3/9'}, {'train_loss': 2}]
    file.write_text(''.join(json.dumps(line) + '\n' for line in [*kept, *later]) + '{"lo')
    trim_log(file, 2)
    assert [json.loads(line) for line in file.read_text().splitlines()] == kept


@pytest.mark.parametrize(
    ('steps', 'limit', 'best', 'left'),
    [
        ([2, 4, 10], 2, None, [4, 10]),
        ([2, 4, 10], 2, 2, [2, 10]),
        ([2, 4, 10], 1, 4, [4, 10]),
        ([2, 4, 10], 1, None, [10]),
        ([2, 4, 10], None, None, [2, 4, 10]),
    ],
)
def test_rotation(tmp_path, steps, limit, best, left):
    for step in steps:
        (tmp_path / f'checkpoint-{step}').mkdir()
    (tmp_path / 'checkpoint-3.part').mkdir()
    checkpoints.rotate(tmp_path, limit, best and str(tmp_path / f'checkpoint-{best}'))
    assert {path.name for path in tmp_path.iterdir()} == {'checkpoint-3.part', *(f'checkpoint-{n}' for n in left)}


@pytest.mark.parametrize('named', ['run', 'run/checkpoint-2'])
def test_in_the_folder_of_its_run(sft, tmp_path, named):
    """Named by its folder, or by that of the run; the log is one, and nothing is refused because it is there."""
    flags = {'output_dir': str(tmp_path / 'run'), 'save_steps': 1, 'save_total_limit': None}
    sft(**flags, max_steps=3, add_output_dir_suffix=False)
    if named == 'run/checkpoint-2':
        (tmp_path / 'run' / 'checkpoint-3' / 'mark').write_text('')
    last = sft(**flags, max_steps=4, resume_from_checkpoint=str(tmp_path / named))['last_model_checkpoint']
    assert last == str(tmp_path / 'run' / 'checkpoint-4')
    assert (tmp_path / 'run' / 'checkpoint-3' / 'mark').exists() is False
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'logging.jsonl').read_text().splitlines()]
    steps = [line['global_step/max_steps'].split('/')[0] for line in lines if 'loss' in line]
    assert steps == ['1', '2', '3', '4']
    saved = json.loads((tmp_path / 'run' / 'training_args.json').read_text())
    assert (saved['max_steps'], saved['learning_rate']) == (4, 1e-2)


def test_an_early_end_counts_on(sft, tmp_path):
    """How often a run was no better is part of its checkpoint."""
    flags = {'dataset_test_ratio': 0.1, 'eval_steps': 1, 'save_steps': 1, 'num_train_epochs': 9, 'learning_rate': 3.0,
             'lr_scheduler_type': 'constant', 'early_stop_interval': 3, 'save_total_limit': 99,
             'add_output_dir_suffix': False}  # fmt: skip
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    end = sft(**flags, output_dir=str(whole))['global_step']
    sft(**flags, output_dir=str(cut))
    shutil.rmtree(cut / f'checkpoint-{end}')
    assert sft(**flags, output_dir=str(cut), resume_from_checkpoint='last')['global_step'] == end
    assert lines(whole)[:-1] == lines(cut)[:-1]


@pytest.mark.parametrize(
    ('name', 'value'), [('learning_rate', 3e-3), ('weight_decay', 0.0), ('adam_beta2', 0.99), ('adam_epsilon', 1e-6)]
)
def test_what_the_optimizer_goes_on_with_cannot_be_changed(sft, name, value):
    last = sft(max_steps=1)['last_model_checkpoint']
    with pytest.raises(UsageError, match=rf'was trained with --{name} .*--resume_only_model true'):
        sft(max_steps=2, resume_from_checkpoint=last, **{name: value})


def test_other_data_is_said(sft, tmp_path, capsys):
    last = sft(max_steps=1)['last_model_checkpoint']
    sft(max_steps=2, resume_from_checkpoint=last)
    assert 'not as in the checkpoint' not in capsys.readouterr().out
    sft(max_steps=2, resume_from_checkpoint=last, max_length=1000, dataset_seed=7)
    out = capsys.readouterr().out
    assert 'note: not as in the checkpoint: --dataset_seed, --max_length; the rows' in out


def test_nothing_is_held_out_any_more(sft, capsys):
    """The best checkpoint is still that of the run before; what it was measured on is gone."""
    flags = {'learning_rate': 3.0, 'lr_scheduler_type': 'constant', 'add_output_dir_suffix': True}
    first = sft(dataset_test_ratio=0.1, eval_steps=1, max_steps=2, save_total_limit=9, **flags)
    last = Path(first['last_model_checkpoint'])
    best = first['best_model_checkpoint']
    sft(max_steps=4, save_steps=9, resume_from_checkpoint=str(last), **flags)
    assert f'best checkpoint: {best}\n' in capsys.readouterr().out


def test_the_best_of_other_data_is_no_measure(sft, data, tmp_path, capsys):
    """The rows before were so easy that nothing comes near: their checkpoint would stay the best."""
    flags = {'eval_steps': 1, 'save_total_limit': 9}
    first = sft(max_steps=2, dataset_test_ratio=0.1, **flags)
    file = Path(first['last_model_checkpoint']) / 'trainer_state.json'
    state = json.loads(file.read_text())
    for entry in state['log_history']:
        entry |= {'eval_loss': 0.001} if 'eval_loss' in entry else {}
    file.write_text(json.dumps(state))
    going_on = {'max_steps': 4, 'resume_from_checkpoint': first['last_model_checkpoint'], **flags}
    same = sft(dataset_test_ratio=0.1, **going_on)
    assert same['best_model_checkpoint'] == first['best_model_checkpoint']
    other = tmp_path / 'other.jsonl'
    other.write_text('\n'.join(data.read_text().splitlines()[:15]))
    capsys.readouterr()
    anew = sft(dataset=[str(other)], dataset_test_ratio=0.1, **going_on)
    assert Path(anew['best_model_checkpoint']).parent == Path(anew['last_model_checkpoint']).parent
    assert 'which checkpoint is best is found anew' in capsys.readouterr().out
    assert sft(dataset=[str(other)], **going_on)['best_model_checkpoint'] is None


def test_more_steps_go_on_at_the_rate_of_their_schedule(sft):
    """Not at that of the shorter one's end, which is 0."""

    def rates(result):
        state = json.loads((Path(result['last_model_checkpoint']) / 'trainer_state.json').read_text())
        return {entry['step']: entry['learning_rate'] for entry in state['log_history'] if 'learning_rate' in entry}

    first = sft(max_steps=2, logging_steps=1)
    whole = rates(sft(max_steps=4, logging_steps=1))
    gone_on = rates(sft(max_steps=4, logging_steps=1, resume_from_checkpoint=first['last_model_checkpoint']))
    assert whole[3] > 0 and (gone_on[3], gone_on[4]) == (whole[3], whole[4])


def test_another_figure_is_no_measure_of_the_best_before(sft, capsys):
    """No share of right tokens is above the loss; nor has what stops early been counted before."""
    flags = {'eval_steps': 1, 'dataset_test_ratio': 0.1, 'save_total_limit': 9}
    first = sft(max_steps=2, **flags)
    flags |= {'resume_from_checkpoint': first['last_model_checkpoint'], 'early_stop_interval': 9}
    capsys.readouterr()
    second = sft(max_steps=3, metric_for_best_model='token_acc', **flags)
    said = 'not as in the checkpoint: --metric_for_best_model, --greater_is_better; which checkpoint is best is found'
    assert said in capsys.readouterr().out
    state = json.loads((Path(second['last_model_checkpoint']) / 'trainer_state.json').read_text())
    assert state['best_metric'] == state['log_history'][-1]['eval_token_acc']


def test_samples_of_later_steps_are_taken_out(sft, tmp_path):
    flags = {'save_steps': 1, 'save_total_limit': 9, 'sample_prompts': ['hi'], 'sample_steps': 1, 'sample_tokens': 1,
             'output_dir': str(tmp_path / 'run'), 'add_output_dir_suffix': False}  # fmt: skip
    sft(max_steps=3, **flags)
    shutil.rmtree(tmp_path / 'run' / 'checkpoint-3')
    sft(max_steps=4, resume_from_checkpoint='last', **flags)
    found = (tmp_path / 'run' / 'samples.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in found] == [1, 2, 3, 4]
