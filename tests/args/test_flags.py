"""Every flag of ms-swift and vLLM on the command line: honoured, another name, needless with a notice, or refused."""

import logging
from dataclasses import fields

import pytest

from swiftlite.args.inventory import MS_SWIFT, MS_SWIFT_LATER
from swiftlite.args.refused import TABLES, known_flags
from swiftlite.cli.main import COMMANDS
from swiftlite.cli.parse import Flag, flags, parse
from swiftlite.engine.config import EngineConfig
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.registry.vllm_flags import ENGINE, SHORT

CASES: dict[str, set[str]] = {
    command: {*MS_SWIFT.get(command, []), *MS_SWIFT_LATER.get(command, []), *TABLES[command]} for command in TABLES
}
# what a command needs besides the flag in question
BASE = {
    'sft': ['--dataset', 'a.jsonl'],
    'export': ['--ckpt_dir', 'c', '--merge_lora', 'true'],
    'eval': ['--eval_dataset', 'a.jsonl'],
}
BESIDE: dict[str | tuple[str, str], list[str]] = {
    'ssl_keyfile': ['--ssl_certfile', 'c'],
    'ssl_certfile': ['--ssl_keyfile', 'k'],
    'load_dataset_config': ['--ckpt_dir', 'c'],
    'merge_lora': ['--ckpt_dir', 'c'],
    ('export', 'merge_lora'): [],
    'train_dataset_sample': ['--dataset', 'a.jsonl'],
    'streaming': ['--max_steps', '5'],
    'stopping_strategy': ['--interleave_prob', '1'],
    ('sft', 'train_dataset_sample'): [],
    ('app-ui', 'api_key'): ['--base_url', 'http://localhost:8000/v1'],
    'packing_length': ['--packing', 'true'],
    'resume_only_model': ['--resume_from_checkpoint', 'last'],
    'bnb_4bit_quant_type': ['--quantization_bit', '4'],
    'bnb_4bit_use_double_quant': ['--quantization_bit', '4'],
    'bnb_4bit_comp_dtype': ['--quantization_bit', '4'],
    'freeze_parameters': ['--sft_type', 'full'],
    'freeze_parameters_ratio': ['--sft_type', 'full'],
    'trainable_parameters': ['--sft_type', 'full', '--freeze_parameters', 'model'],
    'eval_is_chat_model': ['--eval_url', 'http://localhost:8000/v1'],
}
VALUES = {
    'lora_modules': ['a=b'],
    'custom_register_path': ['own.yaml'],
    'custom_dataset_info': ['{}'],
    'template_type': ['qwen2_5'],
    'base_url': ['http://localhost:8000/v1'],
    'eval_url': ['http://localhost:8000/v1'],
    'max_steps': ['3'],
    'deepspeed': ['zero2'],
    'packing_length': ['3000'],
    'loss_scale': ['last_round'],
    'interleave_prob': ['1'],
    'init_lora_weights': ['pissa'],
    'quantization_bit': ['4'],
    'model_name': ['小黄'],
    'model_author': ['魔搭'],
}
# flags of ms-swift that are fields, but refuse what they ask for
REFUSED_FIELDS = {('app-ui', 'share'): 'true'}
COUNTED = {'self_cognition_sample': 'self-cognition#', 'train_dataset_sample': 'a.jsonl#'}


def other_value(flag: Flag) -> list[str]:
    """A valid value that is not the default."""
    if flag.name in VALUES:
        return VALUES[flag.name]
    if flag.metadata['choices'] is not None:
        default = flag.default if flag.is_list else [flag.default]
        return [next(choice for choice in flag.metadata['choices'] if choice not in default)]
    if flag.kind is bool:
        return ['false' if flag.default else 'true']
    if flag.kind in (int, float):
        low, high = flag.metadata['low'], flag.metadata['high']
        wanted = (flag.default or low or 0) + (0.01 if flag.kind is float and high and high <= 1 else 1)
        return [str(flag.kind(wanted if high is None or wanted <= high else (low or 0)))]
    return ['{"a": 1}' if flag.kind is dict else 'some']


def typed(command: str, name: str, values: list[str]) -> list[str]:
    flag = next((flag for flag in flags(COMMANDS[command].load()) if name in spellings(flag)), None)
    beside = BESIDE.get((command, flag.name), BESIDE.get(flag.name, [])) if flag is not None else []
    return [*BASE.get(command, []), *beside, f'--{name}', *values]


def spellings(flag: Flag) -> list[str]:
    return [name.lstrip('-').replace('-', '_') for name in flag.names]


@pytest.mark.parametrize('command', CASES)
def test_flags(command, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.yaml').write_text('models: []')
    caplog.set_level(logging.WARNING)
    wrong = {}
    for name in sorted(CASES[command]):
        caplog.clear()
        try:
            check(command, name, caplog)
        except Exception as error:
            wrong[name] = f'{type(error).__name__}: {error}'
    assert not wrong


def check(command, name, caplog):
    cls = COMMANDS[command].load()
    flag = next((flag for flag in flags(cls) if name in spellings(flag)), None)
    if (command, name) in REFUSED_FIELDS:
        with pytest.raises(UsageError, match='refused'):
            parse(cls, typed(command, name, [REFUSED_FIELDS[command, name]]), command)
    elif flag is not None:
        values = other_value(flag)
        args = parse(cls, typed(command, name, values), command)
        if flag.name in COUNTED:
            assert args.dataset[-1] == f'{COUNTED[flag.name]}{values[0]}'
        else:
            assert getattr(args, flag.name) != flag.default
        assert not caplog.records
    else:
        check_known(command, name, known_flags(command, cls)[name.lower()], caplog)


def check_known(command, name, row, caplog):
    cls = COMMANDS[command].load()
    if row.needless:
        value = next(iter(row.values), 'something')
        parse(cls, typed(command, name, [value]), command)
        said = [record.getMessage() for record in caplog.records]
        assert said == [f'--{name} {value} has no effect: {row.reason}']
        if row.values:
            with pytest.raises(UsageError, match=f'--{name} takes {row.values[0]}'):
                parse(cls, typed(command, name, ['something']), command)
        return
    with pytest.raises(UsageError) as error:
        parse(cls, typed(command, name, ['something']), command)
    assert str(error.value) == f'--{name} is not supported by swiftlite {command}: {row.reason}'
    for off in ('false', *row.values):
        parse(cls, typed(command, name, [off]), command)
    assert not caplog.records


@pytest.mark.parametrize('tables', [MS_SWIFT, MS_SWIFT_LATER], ids=['2.6', 'later'])
def test_no_flag_is_listed_twice(tables):
    for command, names in tables.items():
        assert len(names) == len(set(names)), command


def test_the_inventory_is_the_whole_of_ms_swift():
    assert {command: len(names) for command, names in MS_SWIFT.items()} == {
        'sft': 212, 'infer': 83, 'export': 102, 'app-ui': 88, 'deploy': 91, 'eval': 97,
    }  # fmt: skip


def test_reasons_are_half_sentences():
    for table in TABLES.values():
        for row in table.values():
            assert row.reason and not row.reason.endswith('.') and '\n' not in row.reason
            assert all(value == value.lower() for value in row.values)


@pytest.mark.parametrize(('letters', 'name'), SHORT.items())
def test_short_spellings_of_vllm(letters, name, caplog):
    words, cls = ['--model', 'tiny-chat', letters, '7'], COMMANDS['deploy'].load()
    if ENGINE[name].needless:
        parse(cls, words, 'deploy')
        assert f'{letters} 7 has no effect' in caplog.text
    else:
        with pytest.raises(UsageError, match=f'^{letters} is not supported'):
            parse(cls, words, 'deploy')


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('deploy --runner pooling', "--runner takes auto, generate, not 'pooling'"),
        ('deploy --speculative-config.model x', '--speculative-config.model is not supported.*guessed'),
        ('deploy --tensor-paralel-size 2', "did you mean '--tensor_parallel_size'"),
        ('sft --lora-rnak 4 --dataset a', "did you mean '--lora_rank'"),
        ('infer --infer_backend vlm', "did you mean 'vllm'"),
    ],
)
def test_mistakes(line, said):
    command, *words = line.split()
    with pytest.raises(UsageError, match=said):
        parse(COMMANDS[command].load(), words, command)


def test_no_switch_of_vllm_that_is_off_anyway(caplog):
    cls = COMMANDS['deploy'].load()
    parse(cls, ['--no-enable-expert-parallel'], 'deploy')
    assert not caplog.records
    parse(cls, ['--no-enable-chunked-prefill'], 'deploy')
    assert 'always read in chunks' in caplog.text


def test_options_of_llm(caplog):
    caplog.set_level(logging.WARNING)
    assert not {f.name for f in fields(EngineConfig)} & set(ENGINE)
    for name, row in ENGINE.items():
        caplog.clear()
        if row.needless:
            value = next(iter(row.values), 'something')
            assert EngineConfig.from_kwargs(model='tiny-chat', **{name: value}).model == 'tiny-chat'
            assert row.reason in caplog.text, name
        else:
            with pytest.raises(SwiftliteError, match=f'{name} is .something.') as error:
                EngineConfig.from_kwargs(model='tiny-chat', **{name: 'something'})
            assert row.reason in str(error.value)
            for off in (None, False, 0, *row.values):
                assert EngineConfig.from_kwargs(model='tiny-chat', **{name: off}).model == 'tiny-chat'
            assert not caplog.records, name
