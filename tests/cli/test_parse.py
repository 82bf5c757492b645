"""Every form of a flag, and every way to get one wrong."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.args.deploy import DeployArgs
from swiftlite.args.fields import Args, arg
from swiftlite.args.infer import InferArgs
from swiftlite.args.sft import SftArgs
from swiftlite.cli.parse import parse
from swiftlite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Every(Args):
    """A field of every kind."""

    what: str | None = arg(None, 'h', group='g', positional=True)
    text: str = arg('x', 'h', group='g', aliases=('words', '-t'))
    number: int = arg(1, 'h', group='g')
    maybe: float | None = arg(0.5, 'h', group='g')
    switch: bool = arg(False, 'h', group='g')
    maybe_switch: bool | None = arg(None, 'h', group='g')
    names: list[str] = arg([], 'h', group='g')
    counts: list[int] | None = arg(None, 'h', group='g')
    files: list[str] = arg([], 'h', group='g', split=',')
    table: dict[str, Any] | None = arg(None, 'h', group='g')


def read(line: str | list[str], cls: Any = Every, command: str = 'every') -> Any:
    return parse(cls, line.split() if isinstance(line, str) else line, command)


@pytest.mark.parametrize(
    ('line', 'field', 'value'),
    [
        ('--text a', 'text', 'a'),
        ('--text=a=b', 'text', 'a=b'),
        (['--text', ''], 'text', ''),
        ('--text=--x', 'text', '--x'),
        ('--words a', 'text', 'a'),
        ('-t a', 'text', 'a'),
        ('--text a --text b', 'text', 'b'),
        (['--text', '- a list\n- of two'], 'text', '- a list\n- of two'),
        ('--number -1', 'number', -1),
        ('--maybe 1e-5', 'maybe', 1e-5),
        ('--maybe none', 'maybe', None),
        ('--switch', 'switch', True),
        ('--switch true', 'switch', True),
        ('--switch False', 'switch', False),
        ('--no-switch', 'switch', False),
        ('--maybe-switch 0', 'maybe_switch', False),
        ('--maybe_switch none', 'maybe_switch', None),
        ('--names a b', 'names', ['a', 'b']),
        ('--names a --names b', 'names', ['a', 'b']),
        ('--names a,b', 'names', ['a,b']),
        ('--files a,b c', 'files', ['a', 'b', 'c']),
        ('--counts 1 2', 'counts', [1, 2]),
        (['--table', '{"a": [1]}'], 'table', {'a': [1]}),
        ('this --switch', 'what', 'this'),
    ],
)
def test_forms(line, field, value):
    assert getattr(read(line), field) == value


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('--txet a', "no flag --txet; did you mean '--text'"),
        ('--zzz', "'swiftlite every --help'"),
        ('--number one', "--number takes a whole number, not 'one'"),
        ('--number 1.5', 'whole number'),
        ('--maybe x', 'a number'),
        ('--switch maybe', 'true or false'),
        ('--text', 'one value'),
        ('--text a b', r'not 2 \(a b\)'),
        ('--names', 'at least one'),
        (['--table', '[1]'], 'JSON object'),
        (['--table', '{'], 'JSON object'),
        ('--no-text', '--no-text'),
        ('--config', 'one file'),
        ('--config /no/such.yaml', 'is no file'),
        ('a b', 'one value'),
    ],
)
def test_mistakes_are_one_sentence(line, said):
    with pytest.raises(UsageError, match=said) as error:
        read(line)
    assert '\n' not in str(error.value)


def test_word_without_a_flag():
    with pytest.raises(UsageError, match="'tiny-chat' is no flag"):
        read('tiny-chat', SftArgs, 'sft')


@given(st.text(max_size=30).filter(lambda s: not s.startswith('--')))
def test_any_text_arrives_unchanged(text):
    assert read(['--text', text]).text == text
    assert read([f'--text={text}']).text == text


def test_config_is_read_as_the_command_line_is(tmp_path):
    file = tmp_path / 'c.yaml'
    file.write_text('text: 007\nmaybe: 1e-5\nswitch: true\nnames: [a, b]\nfiles: x,y\ntable: {a: "1"}\ncounts:\n- 3\n')
    args = read(f'--config {file}')
    assert (args.text, args.maybe, args.switch, args.names, args.files) == ('007', 1e-5, True, ['a', 'b'], ['x', 'y'])
    assert (args.table, args.counts) == ({'a': '1'}, [3])
    assert read(['--config', str(file), '--text', 'typed', '--names', 'c']).names == ['c'], 'the command line replaces'
    assert read([str(file), '--no-switch']).switch is False, 'the file may stand first, without --config'


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('nubmer: 3', "did you mean '--number'"),
        ('number: three', 'whole number'),
        ('- a', 'one flag a line'),
        ('a: [', 'is no YAML'),
        ('config: other.yaml', "names another file, 'other.yaml'"),
    ],
)
def test_mistakes_in_a_config_name_the_file(tmp_path, content, said):
    file = tmp_path / 'c.yaml'
    file.write_text(content)
    with pytest.raises(UsageError, match=said) as error:
        read(f'--config {file}')
    assert str(file) in str(error.value) and '\n' not in str(error.value)


def test_json_config(tmp_path):
    file = tmp_path / 'c.json'
    file.write_text('{"number": 3, "switch": true, "names": ["a"]}')
    args = read(f'--config {file}')
    assert (args.number, args.switch, args.names) == (3, True, ['a'])


def test_ms_swift_lines():
    args = read(
        '--model_type qwen-7b-chat --dataset self-cognition#500 my.jsonl --lora_target_modules ALL '
        '--model_name 小黄 Xiao --model_author 魔搭 ModelScope --per-device-train-batch-size 2 --torch_dtype bfloat16',
        SftArgs,
        'sft',
    )
    assert args.dataset == ['self-cognition#500', 'my.jsonl'] and args.model_name == ['小黄', 'Xiao']
    assert (args.lora_target_modules, args.batch_size, args.dtype) == (['ALL'], 2, 'bf16')
    args = read('--model tiny-chat --train_type full --dataset a,b --split_dataset_ratio 0', SftArgs, 'sft')
    assert (args.model_id_or_path, args.sft_type, args.dataset, args.dataset_test_ratio) == (
        'tiny-chat',
        'full',
        ['a', 'b'],
        0,
    )


def test_vllm_line():
    args = read(
        '--model tiny-chat --served-model-name a b --max-model-len 512 --tensor-parallel-size 2 --dtype float32 '
        '--enable-lora --lora-modules x=/x --max-num-seqs 8 --gpu-memory-utilization 0.5 --enforce-eager --seed 3 '
        '--host 127.0.0.1 --port 0 --api-key secret --no-enable-prefix-caching',
        DeployArgs,
        'deploy',
    )
    assert (args.model_id_or_path, args.served_model_name, args.max_model_len) == ('tiny-chat', ['a', 'b'], 512)
    assert (args.enable_lora, args.enforce_eager, args.enable_prefix_caching) == (True, True, False)
    assert (args.tensor_parallel_size, args.dtype, args.lora_modules, args.seed) == (2, 'fp32', ['x=/x'], 3)
    assert (args.max_num_seqs, args.gpu_memory_utilization, args.host, args.port) == (8, 0.5, '127.0.0.1', 0)
    assert args.api_key == ['secret']
    assert read('-tp 4', DeployArgs, 'deploy').tensor_parallel_size == 4


def test_refused_flag_says_why():
    with pytest.raises(UsageError, match=r'--lora-bias is not supported by swiftlite sft: biases stay'):
        read('--lora-bias all --dataset a', SftArgs, 'sft')
    with pytest.raises(UsageError, match=r'--num_beams .* one reply'):
        read('--num_beams 4', InferArgs, 'infer')


def test_refused_feature_that_is_turned_off_is_no_error(caplog):
    read('--sequence_parallel_size 1 --quantization_bit 0 --dataset a', SftArgs, 'sft')
    read('--num_beams 1', InferArgs, 'infer')
    assert caplog.text == ''


def test_needless_flag_is_accepted_with_one_notice(caplog):
    read('--infer_backend vllm', InferArgs, 'infer')
    assert [record.getMessage() for record in caplog.records] == [
        "--infer_backend vllm has no effect: there is one engine, swiftlite's own"
    ]


def test_checkpoint_fills_what_was_not_typed(tmp_path):
    (tmp_path / 'sft_args.json').write_text('{"system": "saved", "dtype": "bf16"}')
    args = read(['--ckpt_dir', str(tmp_path), '--system', 'typed'], InferArgs, 'infer')
    assert (args.system, args.dtype) == ('typed', 'bf16')


def test_vllm_serve_names_its_model_without_a_flag(monkeypatch):
    from swiftlite.cli import deploy
    from swiftlite.cli.main import run

    seen = []
    monkeypatch.setattr(deploy, 'main', lambda args: seen.append((args.model_id_or_path, args.port)))
    assert (
        run(['serve', 'tiny-chat', '--port', '9000']) == run(['serve', '--model', 'tiny-chat', '--port', '9000']) == 0
    )
    assert seen == [('tiny-chat', 9000)] * 2
