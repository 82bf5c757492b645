"""Every file in configs/ is understood, says when to use it, and runs in a small form."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swiftlite.cli.main import COMMANDS, run
from swiftlite.cli.parse import parse
from tests.tiny import EXACT_FLAGS

ROOT = Path(__file__).parent.parent.parent
SFT = sorted((ROOT / 'configs' / 'sft').glob('*.yaml'))
CONFIGS = sorted((ROOT / 'configs').glob('*.yaml')) + SFT
# what makes each small; 'output' is in a temporary folder
SMALL = {
    'infer': f'--max_new_tokens 4 {" ".join(EXACT_FLAGS)}',
    'eval': f'--max_new_tokens 16 {" ".join(EXACT_FLAGS)}',
    'bench': '--num_prompts 2 --max_input_len 16 --max_output_len 16 --baselines none',
}
# what makes each of configs/sft small, and some smaller
FEW = '--max_steps 2 --batch_size 2 --gradient_accumulation_steps 1 --output_dir run --add_output_dir_suffix false'
FEW += ' --report_to none'
LESS = {
    'eval': '--eval_steps 1 --save_steps 1 --dataset self-cognition#40 --sample_tokens 2',
    'base-model': '--dataset self-cognition#8',
    'mix': '--interleave_prob 0.2 0.4 0.4 --stopping_strategy first_exhausted',
}
SHARED = {'fsdp2', 'deepspeed-zero2', 'deepspeed-zero3'}  # several processes
# commands that run until they are stopped; tests/serve and tests/ui start them
SERVERS = {'deploy', 'deploy-adapters', 'app-ui'}


def command_of(config: Path) -> str:
    if config.parent.name in COMMANDS:
        return config.parent.name
    return next(name for name in COMMANDS if config.stem == name or config.stem.startswith(f'{name}-'))


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder from which the paths in configs/ are right."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_one_for_every_command_that_runs_a_model():
    without = {'models', 'doctor', 'bench adapters', 'bench train'}
    assert {command_of(config) for config in CONFIGS} == set(COMMANDS) - without
    assert {config.stem for config in CONFIGS if config not in SFT} == {*SMALL, *SERVERS, 'export-merge'}
    assert LESS.keys() <= {config.stem for config in SFT}
    listed = re.findall(r'\[([\w/-]+\.yaml)\]\(\1\)', (ROOT / 'configs' / 'README.md').read_text(encoding='utf-8'))
    assert sorted(listed) == sorted(str(config.relative_to(ROOT / 'configs')) for config in CONFIGS)


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: f'{config.parent.name}-{config.stem}')
def test_config_is_understood_and_says_when_to_use_it(config, beside):
    first, second, third, *_ = config.read_text(encoding='utf-8').splitlines()
    assert re.match(r'# Use this (to|when) .*[.:]', first) and len(first) <= 120
    command = re.match(r'#   (?:NPROC_PER_NODE=2 )?swiftlite (\S+) (configs/\S+)(.*)', second)
    assert command and command[1] == command_of(config) and command[2] == str(config.relative_to(ROOT))
    if config in SFT:
        assert re.match(r'# (For an? \dB|Several computers): ', third), 'what to change for a real model'
    parse(COMMANDS[command[1]].load(), [command[2], *command[3].split()], command[1])


@pytest.mark.parametrize('config', SFT, ids=lambda config: config.stem)
def test_training_runs(config, beside, capsys, monkeypatch):
    """Two steps of each way to train; what it leaves is an adapter, or whole weights."""
    monkeypatch.setattr('swiftlite.train.watching.plots.draw', lambda *_: [])
    if config.stem == 'qlora':
        pytest.importorskip('bitsandbytes', reason="4 bits need bitsandbytes: pip install 'swiftlite[qlora]'")
    words = f'sft --config configs/sft/{config.name} {FEW} {LESS.get(config.stem, "")}'.split()
    if config.stem in SHARED:
        if config.stem != 'fsdp2':
            pytest.importorskip('deepspeed')
        command = [sys.executable, '-m', 'swiftlite', *words]
        hidden = {'CUDA_VISIBLE_DEVICES': ''} if torch.cuda.device_count() < 2 else {}
        subprocess.run(command, env={**os.environ, **hidden, 'NPROC_PER_NODE': '2'}, check=True, timeout=300)
    else:
        assert run(words) == 0, capsys.readouterr().err
    (last, *_) = sorted(Path('run').glob('checkpoint-*'), reverse=True)
    assert last.name == 'checkpoint-2'
    full = 'sft_type: full' in config.read_text(encoding='utf-8')
    assert (last / 'model.safetensors').is_file() == full
    assert (last / 'adapter_model.safetensors').is_file() != full
    if config.stem == 'lora-all':
        assert run(['export', 'configs/export-merge.yaml', '--ckpt_dir', str(last)]) == 0
        assert Path(f'{last}-merged', 'model.safetensors').is_file()


@pytest.mark.parametrize('name', SMALL)
def test_config_runs(name, beside, capsys):
    command = name.partition('-')[0]
    status = run([command, f'configs/{name}.yaml', *SMALL[name].split()])
    assert status == 0, capsys.readouterr().err
    if name == 'infer':
        (file,) = Path('output/answers').glob('*.jsonl')
        assert len(file.read_text().splitlines()) == 3
    if name == 'eval':
        assert list(Path('output/eval').rglob('*.jsonl'))
    if name == 'bench':
        assert json.loads(Path('bench.json').read_text())
