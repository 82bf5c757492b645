"""Values of the command dataclasses, however they are given."""

import ast
from dataclasses import fields, replace
from pathlib import Path

import pytest

import swiftlite
from swiftlite.args.app_ui import AppUiArgs
from swiftlite.args.bench import BenchArgs
from swiftlite.args.bench_adapters import AdapterBenchArgs
from swiftlite.args.checkpoint import recover
from swiftlite.args.deploy import DeployArgs
from swiftlite.args.doctor import DoctorArgs
from swiftlite.args.eval import EvalArgs
from swiftlite.args.export import ExportArgs
from swiftlite.args.groups import EngineArgs
from swiftlite.args.infer import InferArgs
from swiftlite.args.models import ModelsArgs
from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError

CLASSES = {
    'sft': SftArgs,
    'export': ExportArgs,
    'infer': InferArgs,
    'deploy': DeployArgs,
    'app-ui': AppUiArgs,
    'eval': EvalArgs,
    'bench': BenchArgs,
    'bench adapters': AdapterBenchArgs,
    'models': ModelsArgs,
    'doctor': DoctorArgs,
}
READ_BY = {
    'source': {'model_type', 'model_id_or_path', 'model_revision', 'ckpt_dir'},
    'template_options': {'system', 'enable_thinking', 'chat_template'},
    'adapters': {'lora_modules'},
    'limits': {'goodput'},
    'rate': {'request_rate'},
    'uses_lora': {'enable_lora'},
    'engine_options': {f.name for f in fields(EngineArgs)},
    'recover': {'load_args_from_ckpt_dir', 'load_dataset_config'},
    # settled when they are checked
    'check': {
        *('merge_lora', 'kind', 'share', 'self_cognition_sample', 'train_dataset_sample'),
        *('custom_register_path', 'custom_dataset_info', 'train_on_prompt', 'mask_history'),
    },
}
DATA = {'dataset': ['x.jsonl']}


@pytest.mark.parametrize('cls', CLASSES.values())
def test_every_field_is_documented(cls):
    assert cls.summary and cls.examples
    for f in fields(cls):
        assert f.metadata['help'] and f.metadata['group'], f.name


@pytest.mark.parametrize('command', CLASSES)
def test_no_flag_has_two_meanings(command):
    spellings = [name.replace('-', '_') for f in fields(CLASSES[command]) for name in (f.name, *f.metadata['aliases'])]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ('command', 'package'),
    [
        ('sft', 'train'),
        ('export', 'export'),
        ('infer', 'infer'),
        ('deploy', 'serve'),
        ('bench', 'bench'),
        ('bench adapters', 'bench'),
        ('app-ui', 'ui'),
        ('eval', 'eval'),
    ],
)
def test_every_flag_is_read_by_the_package_it_configures(command, package):
    """A flag that nothing reads would be accepted and ignored."""
    root = Path(swiftlite.__file__).parent
    # what several commands share: the data, and infer.setup, from the engine's flags to an engine
    shared = {
        'train': ['data/*.py'],
        'infer': ['data/*.py'],
        'serve': ['infer/setup.py'],
        'ui': ['infer/setup.py'],
        'eval': ['data/*.py', 'infer/*.py'],
    }
    files = [file for pattern in (f'{package}/**/*.py', *shared.get(package, [])) for file in root.glob(pattern)]
    read = {name for file in files for name in attributes_of_args(file)}
    read |= {name for method, names in READ_BY.items() if method in read for name in names}
    assert {f.name for f in fields(CLASSES[command])} - read - READ_BY['recover'] - READ_BY['check'] == set()


def attributes_of_args(file: Path) -> set[str]:
    """x of every ``args.x`` and ``getattr(args, 'x', …)`` in a file."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding='utf-8'))))
    names = {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ('args', 'self._args')}
    gets = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n).startswith('getattr(args, ')]
    return names | {ast.literal_eval(n.args[1]) for n in gets if isinstance(n.args[1], ast.Constant)}


def test_sft_defaults_depend_on_the_kind_of_training():
    lora, full = SftArgs(**DATA), SftArgs(sft_type='full', **DATA)
    assert (lora.learning_rate, lora.eval_steps, lora.save_steps) == (1e-4, 50, 50)
    assert (full.learning_rate, full.eval_steps, full.save_steps) == (1e-5, 200, 200)
    assert SftArgs(eval_steps=7, **DATA).save_steps == 7
    assert SftArgs(seed=5, **DATA).dataset_seed == 5
    assert SftArgs(batch_size=4, **DATA).eval_batch_size == 4
    assert SftArgs(max_length=-1, **DATA).max_length is None


def test_defaults_of_ms_swift():
    args = SftArgs(**DATA)
    assert (args.lora_rank, args.lora_alpha, args.lora_dropout, args.lora_target_modules) == (8, 32, 0.05, ['DEFAULT'])
    assert (args.max_length, args.truncation_strategy, args.dataset_test_ratio, args.batch_size) == (
        2048,
        'delete',
        0.01,
        None,  # 16 rows a step, cut to fit
    )
    assert (args.weight_decay, args.adam_beta2, args.warmup_ratio, args.max_grad_norm) == (0.1, 0.95, 0.05, 1)
    assert (args.save_total_limit, args.logging_steps, args.seed, args.output_dir) == (2, 5, 42, 'output')
    deploy = DeployArgs()
    assert (deploy.host, deploy.port, deploy.log_interval) == ('0.0.0.0', 8000, 10)
    assert deploy.max_num_seqs is None  # 256, more on a large GPU


@pytest.mark.parametrize(
    ('cls', 'values', 'said'),
    [
        (SftArgs, {}, 'no data'),
        (SftArgs, {'sft_type': 'lorra', **DATA}, "lora, full, not 'lorra'; did you mean 'lora'"),
        (SftArgs, {'dtype': 'fp8', **DATA}, 'auto, bf16, fp16, fp32'),
        (SftArgs, {'lora_rank': 0, **DATA}, '--lora_rank must be at least 1'),
        (SftArgs, {'sft_type': 'full', 'use_dora': True, **DATA}, '--use_dora is for adapters: leave it out'),
        (SftArgs, {'sft_type': 'full', 'quantization_bit': 4, **DATA}, '--quantization_bit is for adapters'),
        (SftArgs, {'freeze_parameters': ['lm_head'], **DATA}, '--freeze_parameters is for --sft_type full'),
        (SftArgs, {'sft_type': 'full', 'trainable_parameters': ['lm_head'], **DATA}, 'needs --freeze_parameters'),
        (SftArgs, {'target_regex': 'a', 'lora_target_modules': ['ALL'], **DATA}, 'both name the layers'),
        (SftArgs, {'init_lora_weights': 'pisa', **DATA}, "not 'pisa'; did you mean 'pissa'"),
        (SftArgs, {'init_lora_weights': 'pissa_niter_0', **DATA}, "pissa_niter_N, not 'pissa_niter_0'"),
        (SftArgs, {'init_lora_weights': 'eva', **DATA}, 'a pass over data'),
        (SftArgs, {'init_lora_weights': 'PiSSA', 'quantization_bit': 4, **DATA}, '4 bits cannot give back exactly'),
        (SftArgs, {'quantization_bit': 8, **DATA}, '8-bit layers compute in fp16'),
        (SftArgs, {'quantization_bit': 4, 'fsdp': ['full_shard'], **DATA}, 'the whole model in each process'),
        (SftArgs, {'quantization_bit': 4, 'deepspeed': 'zero3', **DATA}, 'the whole model in each process'),
        (SftArgs, {'modules_to_save': ['norm'], 'fsdp': ['full_shard'], **DATA}, 'which are not shared out'),
        (SftArgs, {'new_special_tokens': ['<a>'], 'deepspeed': 'zero3', **DATA}, '--new_special_tokens trains copies'),
        (SftArgs, {'quantization_bit': 3, **DATA}, 'takes 4, or 0'),
        (SftArgs, {'bnb_4bit_quant_type': 'fp4', **DATA}, '--bnb_4bit_quant_type needs --quantization_bit 4'),
        (SftArgs, {'lora_lr_ratio': 0.0, **DATA}, '--lora_lr_ratio must be at least 0.01'),
        (SftArgs, {'learning_rate': float('nan'), **DATA}, '--learning_rate must be a finite number'),
        (SftArgs, {'num_train_epochs': float('inf'), **DATA}, '--num_train_epochs must be a finite number'),
        (SftArgs, {'max_steps': 0, **DATA}, '--max_steps 0 leaves nothing'),
        (SftArgs, {'max_length': 0, **DATA}, '--max_length 0 leaves no rows'),
        (SftArgs, {'report_to': ['mlflow'], **DATA}, 'tensorboard'),
        (SftArgs, {'template_type': 'qwen25', **DATA}, "'qwen2_5'"),
        (ExportArgs, {'ckpt_dir': 'x'}, 'merge_lora'),
        (ExportArgs, {'merge_lora': True}, '--ckpt_dir'),
        (InferArgs, {'load_dataset_config': True}, '--ckpt_dir'),
        (InferArgs, {'top_p': 1.5}, 'at most 1'),
        (DeployArgs, {'lora_modules': ['a']}, 'name=path'),
        (DeployArgs, {'lora_modules': ['a=x', 'a=y']}, 'twice'),
        (DeployArgs, {'port': 70000}, 'at most 65535'),
        (DeployArgs, {'ssl_keyfile': 'k'}, 'go together'),
    ],
)
def test_wrong_values_are_one_sentence(cls, values, said):
    with pytest.raises(UsageError, match=said) as error:
        cls(**values)
    assert '\n' not in str(error.value)


def test_numbers_of_rows_as_in_ms_swift():
    def specs(**values):
        args = SftArgs(**values)
        assert replace(args, seed=1).dataset == args.dataset, 'a copy counts nothing twice'
        return args.dataset

    assert specs(dataset=['a.jsonl'], train_dataset_sample=10) == ['a.jsonl#10']
    assert specs(dataset=['a#5'], train_dataset_sample=3, self_cognition_sample=7) == ['a#3', 'self-cognition#7']
    assert specs(self_cognition_sample=7) == specs(dataset=['self-cognition#2'], self_cognition_sample=7)
    with pytest.raises(UsageError, match='from one data set, not from 2'):
        SftArgs(dataset=['a', 'b'], train_dataset_sample=3)


def test_dtype_in_every_spelling():
    assert [SftArgs(dtype=d, **DATA).dtype for d in ('AUTO', 'bfloat16', 'half', 'float', 'fp32')] == [
        'auto', 'bf16', 'fp16', 'fp32', 'fp32',
    ]  # fmt: skip


def test_template_and_system():
    assert SftArgs(template_type='AUTO', **DATA).template_type is None
    assert SftArgs(**DATA).template_options() == {}
    assert SftArgs(system='', **DATA).template_options() == {'default_system': None}
    assert SftArgs(system='Be brief.', **DATA).template_options() == {'default_system': 'Be brief.'}
    assert SftArgs(enable_thinking=False, **DATA).template_options() == {'enable_thinking': False}


def test_source_and_adapters():
    args = DeployArgs(model_id_or_path='tiny-chat', lora_modules=['a=/x', 'b=/y=z'])
    assert args.source().model_type == 'tiny-chat'
    assert args.adapters() == {'a': '/x', 'b': '/y=z'}


@pytest.fixture
def checkpoint(tmp_path):
    saved = (
        '{"model_type": "tiny-chat", "template_type": "tiny-chat", "system": "hi", "dtype": "bf16", "dataset": ["a"],'
        ' "enable_thinking": false,'
        ' "val_dataset": [], "dataset_seed": 3, "seed": 9, "lora_rank": 4, "model_name": ["x"], "model_author": null}'
    )
    (tmp_path / 'sft_args.json').write_text(saved)
    return str(tmp_path)


def test_prompt_is_recovered_and_typed_values_win(checkpoint):
    args = InferArgs(**recover(InferArgs, {'ckpt_dir': checkpoint, 'system': 'typed'}))
    assert (args.template_type, args.dtype, args.system) == ('tiny-chat', 'bf16', 'typed')
    assert args.enable_thinking is False
    assert (args.dataset, args.seed) == ([], 42)


def test_data_is_recovered_on_request(checkpoint):
    typed = {'ckpt_dir': checkpoint, 'load_dataset_config': True}
    args = InferArgs(**recover(InferArgs, typed))
    assert (args.dataset, args.dataset_seed, args.seed, args.model_name) == (['a'], 3, 9, ['x'])
    assert InferArgs(**recover(InferArgs, {**typed, 'val_dataset': ['b']})).dataset == []


def test_nothing_is_recovered_if_not_wanted(checkpoint):
    typed = {'ckpt_dir': checkpoint, 'load_args_from_ckpt_dir': False}
    assert recover(InferArgs, typed) == typed
    assert recover(InferArgs, {'system': 'x'}) == {'system': 'x'}


def test_data_that_was_asked_for_is_never_left_out(checkpoint, tmp_path):
    typed = {'ckpt_dir': checkpoint, 'load_dataset_config': True, 'load_args_from_ckpt_dir': False}
    args = InferArgs(**recover(InferArgs, typed))
    assert (args.dataset, args.system) == (['a'], None)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='names the data it was trained on'):
        recover(InferArgs, {'ckpt_dir': str(tmp_path / 'empty'), 'load_dataset_config': True})
    typed = {'ckpt_dir': str(tmp_path / 'empty'), 'load_dataset_config': True, 'val_dataset': ['b']}
    assert recover(InferArgs, typed) == typed
