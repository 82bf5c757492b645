"""The command line as a whole: exit status, help, launch."""

import json
import subprocess
import sys
import types
from dataclasses import fields

import pytest

from swiftlite.cli import main as cli
from swiftlite.cli.main import ABSENT, COMMANDS, run, torchrun_command
from swiftlite.errors import SwiftliteError
from swiftlite.registry.models import MODELS
from swiftlite.registry.templates import TEMPLATES

LAUNCH = ('NPROC_PER_NODE', 'NNODES', 'NODE_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'LOCAL_RANK')


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake(monkeypatch):
    """fake(command, action): the command's module is replaced; what it was called with is returned in a list."""

    def replace(name, action=lambda args: 0):
        calls = []
        module = types.SimpleNamespace(main=lambda args: calls.append(args) or action(args))
        load = cli.importlib.import_module
        target = COMMANDS[name].module
        monkeypatch.setattr(cli.importlib, 'import_module', lambda n: module if n == target else load(n))
        return calls

    return replace


def test_command_gets_its_arguments(fake):
    calls = fake('sft')
    assert run(['sft', '--model-type', 'tiny-chat', '--dataset', 'a.jsonl']) == 0
    assert calls[0].model_type == 'tiny-chat'


def test_failure_is_one_sentence_and_status_1(fake, capsys):
    def fail(_args):
        raise SwiftliteError('the disk is full')

    fake('sft', fail)
    assert run(['sft', '--dataset', 'a']) == 1
    assert capsys.readouterr().err == 'swiftlite: the disk is full\n'


def test_interrupt_is_quiet(fake, capsys):
    def interrupt(_args):
        raise KeyboardInterrupt

    fake('infer', interrupt)
    assert run(['infer']) == 130
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('infr', "did you mean 'infer'"),
        ('zzz', 'sft, export'),
        ('sft --lora_rnak 3', "did you mean '--lora_rank'"),
        ('sft --dtype fp8 --dataset a', '--dtype'),
        *((name, ABSENT[name]) for name in ABSENT),
        ('web_ui', ABSENT['web-ui']),
    ],
)
def test_usage_error_is_one_sentence_and_status_2(capsys, line, said):
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == '' and said in err and err.count('\n') == 1


@pytest.mark.parametrize(
    ('line', 'command', 'value'),
    [
        ('merge-lora --ckpt_dir a', 'export', ('merge_lora', True)),
        ('merge_lora --ckpt_dir a --output_dir b', 'export', ('output_dir', 'b')),
        ('pt --dataset text.jsonl', 'sft', ('sft_type', 'full')),
        ('pt --dataset text.jsonl --sft_type lora', 'sft', ('sft_type', 'lora')),
        ('app --model tiny-chat', 'app-ui', ('model_id_or_path', 'tiny-chat')),
        ('app_ui --port 0', 'app-ui', ('port', 0)),
        ('EVAL --eval_dataset a.jsonl', 'eval', ('eval_dataset', ['a.jsonl'])),
    ],
)
def test_other_names_of_commands(fake, line, command, value):
    calls = fake(command)
    assert run(line.split()) == 0
    assert getattr(calls[0], value[0]) == value[1]


def test_a_file_of_flags_stands_first_and_sets_variables(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.os, 'environ', {'KEPT': 'shell'})
    (tmp_path / 'sft.yaml').write_text('ENV:\n  KEPT: file\n  FRESH: 1\ndataset: a\nlora_rank: 4\n')
    calls = fake('sft')
    assert run(['sft', str(tmp_path / 'sft.yaml'), '--lora_rank', '2']) == 0
    assert (calls[0].dataset, calls[0].lora_rank) == (['a'], 2)
    assert cli.os.environ == {'KEPT': 'shell', 'FRESH': '1'}
    (tmp_path / 'merge.json').write_text('{"ckpt_dir": "a"}')
    calls = fake('export')
    assert run(['merge-lora', str(tmp_path / 'merge.json')]) == 0
    assert calls[0].merge_lora and calls[0].ckpt_dir == 'a'


@pytest.mark.parametrize('line', [['--help'], ['help'], ['-h']])
def test_overview_names_every_command(capsys, line):
    assert run(line) == 0
    out = capsys.readouterr().out
    assert all(f'\n  {name} ' in out for name in COMMANDS)


def test_no_command_shows_the_overview_as_a_mistake(capsys):
    assert run([]) == 2
    assert 'usage:' in capsys.readouterr().out


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_shows_every_flag_and_an_example(capsys, name):
    assert run([name, '--help']) == run(['help', name]) == 0
    out = capsys.readouterr().out
    cls = COMMANDS[name].load()
    assert f'swiftlite {name}' in out and cls.summary.split()[0] in out
    for f in fields(cls):
        assert f.name in out and f'\n{f.metadata["group"]}:' in out
    assert max(len(line) for line in out.splitlines() if not line.startswith('  swiftlite')) <= 120


def test_help_shows_defaults_and_other_spellings(capsys):
    run(['sft', '--help'])
    out = ' '.join(capsys.readouterr().out.split())
    assert 'rank of the adapter: 8 for a tone, 16 to 64 for new skills [8]' in out
    assert 'also --per_device_train_batch_size' in out
    assert '--sft_type lora|full' in out
    assert '1e-4 for a LoRA' in out


@pytest.mark.parametrize('line', [['--help'], ['sft', '--help'], ['deploy', '--help'], ['models'], ['sft', '--nope']])
def test_no_torch_is_imported_before_a_command_runs(line):
    code = (
        'import sys; from swiftlite.cli.main import run; run(sys.argv[1:]);'
        'heavy = {"torch", "transformers", "numpy", "pydantic", "fastapi", "yaml", "rich"} & set(sys.modules);'
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code, *line], check=True, capture_output=True)


def test_module_and_version():
    import swiftlite

    out = subprocess.run([sys.executable, '-m', 'swiftlite', '--version'], check=True, capture_output=True, text=True)
    assert out.stdout == f'swiftlite {swiftlite.__version__}\n'


def test_closed_pipe_is_quiet():
    code = 'import sys; from swiftlite.cli.main import run; sys.exit(run(["models"]))'
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b''
    process.stderr.close()
    process.wait()


def test_torchrun_is_started_from_the_environment(monkeypatch):
    monkeypatch.setenv('NPROC_PER_NODE', '2')
    words = ['--dataset', 'a b']
    assert torchrun_command('sft', words) == [
        sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--standalone',
        '-m', 'swiftlite', 'sft', '--dataset', 'a b',
    ]  # fmt: skip
    for name, value in (('NNODES', '2'), ('NODE_RANK', '1'), ('MASTER_ADDR', 'host'), ('MASTER_PORT', '29501')):
        monkeypatch.setenv(name, value)
    command = torchrun_command('sft', [])
    assert '--standalone' not in command
    assert command[3:13] == [
        '--nproc_per_node', '2', '--nnodes', '2', '--node_rank', '1', '--master_addr', 'host', '--master_port', '29501',
    ]  # fmt: skip


def test_only_training_is_launched_and_only_once(monkeypatch, fake):
    started = []
    monkeypatch.setattr(cli.os, 'execv', lambda path, command: started.append(command))
    monkeypatch.setenv('NPROC_PER_NODE', '2')
    calls = fake('sft')
    run(['sft', '--dataset', 'a'])
    assert len(started) == 1 and calls == []
    monkeypatch.setenv('LOCAL_RANK', '0')
    run(['sft', '--dataset', 'a'])
    assert len(started) == 1 and len(calls) == 1


def test_usage_errors_come_before_the_launch(monkeypatch, capsys):
    monkeypatch.setattr(cli.os, 'execv', lambda *_: pytest.fail('started'))
    monkeypatch.setenv('NPROC_PER_NODE', 'two')
    assert run(['sft', '--nope']) == run(['sft', '--dataset', 'a']) == 2
    assert "NPROC_PER_NODE must be a number, not 'two'" in capsys.readouterr().err


def test_a_process_for_each_gpu_where_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(cli.os, 'execv', lambda *_: pytest.fail('started'))
    monkeypatch.setenv('NPROC_PER_NODE', 'gpu')
    assert run(['sft', '--dataset', 'a']) == 2
    assert "NPROC_PER_NODE is 'gpu', and there is no GPU: set it to a number" in capsys.readouterr().err


def test_models_lists_and_searches(capsys):
    assert run(['models']) == 0
    out = capsys.readouterr().out
    assert 'tiny-chat' in out and 'Qwen/Qwen-7B-Chat' in out and 'self-cognition' in out
    lines = [line.split() for line in out.splitlines()]
    assert all(any(line[:1] == [name] for line in lines) for name in (*MODELS, *TEMPLATES))
    run(['models', 'qwen2_5-7b', '--json'])
    assert [row['model_type'] for row in json.loads(capsys.readouterr().out)['models']] == [
        'qwen2_5-7b',
        'qwen2_5-7b-instruct',
    ]
    assert run(['models', 'tiny-chta']) == 1
    assert "did you mean 'tiny-chat'" in capsys.readouterr().err


def test_doctor(capsys, monkeypatch):
    assert run(['doctor']) == 0
    out = capsys.readouterr().out
    assert 'torch' in out and 'no problems' in out and '3 + 4 = 7' in out
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    monkeypatch.setenv('https_proxy', 'http://me:word@proxy:1')
    run(['doctor', '--json', '--try_model', 'false'])
    out = capsys.readouterr().out
    report = json.loads(out)
    assert report['packages']['torch'] and 'tried' not in report and 'secret' not in out and 'word' not in out
    assert report['variables']['https_proxy'] == 'http://(login)@proxy:1'
    assert {row['what'].partition(',')[0] for row in report['fits']} >= {'infer', 'sft'}

    from swiftlite.cli import doctor

    version = doctor._version
    monkeypatch.setattr(doctor, '_version', lambda name: {'rich': None, 'peft': '0.1'}.get(name, version(name)))
    assert run(['doctor']) == 1
    out = capsys.readouterr().out
    assert 'problem: rich is missing' in out and 'problem: peft is 0.1' in out


def test_doctor_says_what_is_missing_and_what_fits(capsys, monkeypatch):
    from swiftlite.cli import doctor, machine

    version = doctor._version
    monkeypatch.setattr(doctor, '_version', lambda name: None if name == 'gradio' else version(name))
    gpu = {'name': 'G', 'memory_gib': 80.0, 'free_gib': 79.0, 'compute': '9.0', 'bf16': True, 'error': None}
    facts = {'cores': 8, 'memory_gib': 64.0, 'free_gib': 60.0, 'gpus': [gpu] * 4, 'cuda': '12.8'}
    monkeypatch.setattr(machine, 'machine', lambda: dict(facts))
    assert run(['doctor', '--try_model', 'false']) == 0
    out = capsys.readouterr().out
    assert "app-ui: pip install 'swiftlite[ui]' (gradio)" in out
    fits = {line.rpartition('  ')[0].strip(): line.rpartition('  ')[2] for line in out.splitlines()}
    assert (
        fits['infer, deploy in bf16, 1 GPU'] == '34B'
        and fits['infer, deploy in bf16, --tensor_parallel_size 4'] == '110B'
    )
    assert fits['sft, full, fp32, 1 GPU'] == '4B'
    broken = facts | {'gpus': [gpu | {'error': 'CUDA driver version is insufficient'}]}
    monkeypatch.setattr(machine, 'machine', lambda: dict(broken))
    assert run(['doctor']) == 1
    assert 'problem: GPU 0 does not work: CUDA driver version is insufficient' in capsys.readouterr().out
