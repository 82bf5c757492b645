"""Every file in configs/ is understood, says when to use it, and runs in a small form."""

import json
import re
from pathlib import Path

import pytest

from swiftlite.cli.main import COMMANDS, run
from swiftlite.cli.parse import parse

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / 'configs').glob('*.yaml'))
# what makes each small; 'output' is in a temporary folder
SMALL = {
    'sft-lora': '--max_steps 1',
    'sft-full': '--max_steps 1',
    'sft-base-model': '--max_steps 1 --dataset self-cognition#8',
    'sft-tools': '--max_steps 1',
    'sft-eval': '--max_steps 2 --eval_steps 1 --save_steps 1 --dataset self-cognition#40',
    'sft-2gpu': '--max_steps 1',
    'infer': '--max_new_tokens 4',
    'eval': '--max_new_tokens 16',
    'bench': '--num_prompts 2 --max_input_len 16 --max_output_len 16 --baselines none',
}
# commands that run until they are stopped; tests/serve and tests/ui start them
SERVERS = {'deploy', 'deploy-adapters', 'app-ui'}


def command_of(config: Path) -> str:
    return next(name for name in COMMANDS if config.stem == name or config.stem.startswith(f'{name}-'))


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder from which the paths in configs/ are right."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_one_for_every_command_that_runs_a_model():
    assert {command_of(config) for config in CONFIGS} == set(COMMANDS) - {'models', 'doctor'}
    assert {config.stem for config in CONFIGS} == {*SMALL, *SERVERS, 'export-merge'}
    listed = re.findall(r'\[([\w-]+)\.yaml\]', (ROOT / 'configs' / 'README.md').read_text(encoding='utf-8'))
    assert sorted(listed) == sorted(config.stem for config in CONFIGS)


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: config.stem)
def test_config_is_understood_and_says_when_to_use_it(config, beside):
    first, second = config.read_text(encoding='utf-8').splitlines()[:2]
    assert re.match(r'# Use this (to|when) .*[.:]', first) and len(first) <= 120
    command = re.match(r'#   (?:NPROC_PER_NODE=2 )?swiftlite (\S+) (configs/\S+)(.*)', second)
    assert command and command[1] == command_of(config) and command[2] == f'configs/{config.name}'
    parse(COMMANDS[command[1]].load(), [command[2], *command[3].split()], command[1])


@pytest.mark.parametrize('name', SMALL)
def test_config_runs(name, beside, capsys):
    command = name.partition('-')[0]
    words = SMALL[name].split()
    if command == 'sft':
        words += ['--output_dir', 'run', '--add_output_dir_suffix', 'false', '--report_to', 'none']
    status = run([command, f'configs/{name}.yaml', *words])
    assert status == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    if command == 'sft':
        (last, *_) = sorted(Path('run').glob('checkpoint-*'), reverse=True)
        assert ('adapter_config.json' in {f.name for f in last.iterdir()}) == (name != 'sft-full')
        assert 'kept' in out
    if name == 'sft-lora':
        assert run(['export', 'configs/export-merge.yaml', '--ckpt_dir', str(last)]) == 0
        assert Path(f'{last}-merged', 'model.safetensors').is_file()
    if name == 'infer':
        (file,) = Path('output/answers').glob('*.jsonl')
        assert len(file.read_text().splitlines()) == 3
    if name == 'eval':
        assert list(Path('output/eval').rglob('*.jsonl'))
    if name == 'bench':
        assert json.loads(Path('bench.json').read_text())
