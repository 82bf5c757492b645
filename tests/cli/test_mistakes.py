"""Wrong commands: one sentence that says what is wrong and what is valid, exit status 2 (usage) or 1, no traceback."""

import json
import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlite.cli.main import run
from swiftlite.hub import asset_path
from tests.served import tiny_chat_checkpoint
from tests.tiny import EXACT_FLAGS, tiny_adapter, tiny_qwen2

FILES = {
    'good.jsonl': ''.join(json.dumps({'query': f'q{i}', 'response': f'r{i}'}) + '\n' for i in range(8)),
    'empty.jsonl': '',
    'broken.jsonl': '{"query": "a", "response": "b"\n{\n',
    'broken.json': '[\n{"query": "a",}\n]',
    'object.json': '{"a": 1}',
    'columns.jsonl': '{"qeury": "a", "respones": "b"}\n',
    'rows.csv': 'query,response\na,b,c\n',
    'long.jsonl': json.dumps({'query': 'word ' * 5000, 'response': 'x'}) + '\n',
    'notes.txt': 'hello',
    'typo.yaml': 'modle_type: tiny-chat\n',
    'list.yaml': '- a\n',
    'bad.yaml': 'model: tiny-chat\na: [\n',
    'env.yaml': 'ENV: x\n',
    'twice.yaml': 'model: tiny-chat\nmodel: base\n',
    'value.yaml': 'model: tiny-chat\nmax_new_tokens: many\n',
    'custom.json': '[{"name": "a", "patern": "x", "dataset": "d"}]',
    'broken.jinja': '{% for m in messages %}{{ m }',
}


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, adapters and checkpoints, most of them broken in some way."""
    folder = tmp_path_factory.mktemp('mistakes')
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding='utf-8')
    (folder / 'latin.jsonl').write_bytes(b'{"query": "\xe9"}\n')
    (folder / 'emptydir').mkdir()
    base = tiny_chat_checkpoint(folder / 'base')
    tiny_adapter(folder / 'lora', base)
    tiny_adapter(folder / 'otherlora', tiny_qwen2(folder / 'other', hidden_size=32, num_attention_heads=2))
    for name in ('brokenlora', 'noweights', 'wrongargs'):
        shutil.copytree(folder / 'lora', folder / name)
    (folder / 'brokenlora' / 'adapter_config.json').write_text('{"r": ')
    (folder / 'noweights' / 'adapter_model.safetensors').unlink()
    (folder / 'wrongargs' / 'sft_args.json').write_text('{"model_type": 5}')
    for name in ('layers', 'cut', 'noconfig', 'brokenconfig', 'alien', 'notokenizer'):
        shutil.copytree(base, folder / name)
    (folder / 'cut' / 'model.safetensors').write_bytes((base / 'model.safetensors').read_bytes()[:500])
    (folder / 'noconfig' / 'config.json').unlink()
    (folder / 'brokenconfig' / 'config.json').write_text('{"a": \n')
    config = json.loads((base / 'config.json').read_text())
    (folder / 'alien' / 'config.json').write_text(json.dumps(config | {'architectures': ['MambaForCausalLM']}))
    (folder / 'layers' / 'config.json').write_text(json.dumps(config | {'num_hidden_layers': 9, 'layer_types': None}))
    for file in (folder / 'notokenizer').glob('tokenizer*'):
        file.unlink()
    return folder


@pytest.fixture(scope='module')
def busy_port() -> Iterator[int]:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        yield taken.getsockname()[1]


# (command line, exit status, what the sentence says); CHAT is a model that answers, QA data that fits it
CHAT, QA = '--model tiny-chat', '--dataset good.jsonl'
MISTAKES: list[tuple[str, int, str]] = [
    # commands
    ('infr', 2, "there is no command 'infr'; did you mean 'infer'"),
    ('zzz', 2, "there is no command 'zzz': sft, export"),
    ('--verison', 2, "did you mean '--version'"),
    ('help infre', 2, "did you mean 'infer'"),
    ('web-ui', 2, "'swiftlite app-ui' is the page to chat on"),
    ('dpo --dataset good.jsonl', 2, "'swiftlite sft' on the preferred answers"),
    ('serve tiny-chta', 2, "did you mean 'tiny-chat'"),
    # flags and their values
    ('infer --modle_type tiny-chat', 2, "did you mean '--model_type'"),
    ('infer tiny-chat', 2, "did you mean '--model tiny-chat'"),
    (f'infer {CHAT} --temperature -1', 2, '--temperature must be at least 0, not -1'),
    (f'infer {CHAT} --temperature nan', 2, 'must be a finite number'),
    (f'infer {CHAT} --repetition_penalty inf', 2, 'must be a finite number'),
    (f'infer {CHAT} --top_p 0', 2, '--top_p must be above 0 and at most 1'),
    (f'infer {CHAT} --stop_words ""', 2, 'texts that are not empty'),
    (f'infer {CHAT} --stop_words', 2, 'needs at least one value'),
    (f'infer {CHAT} --max_new_tokens many', 2, "a whole number, not 'many'"),
    (f'infer {CHAT} --max_new_tokens 4 5', 2, 'takes one value, not 2 (4 5)'),
    (f'infer {CHAT} --stream maybe', 2, "true or false, not 'maybe'"),
    (f'infer {CHAT} --dtype bf61', 2, "did you mean 'bf16'"),
    (f'infer {CHAT} --num_beams 4', 2, 'one reply is drawn at a time'),
    (f'infer {CHAT} --infer_backend vlm', 2, "did you mean 'vllm'"),
    (f'infer {CHAT} --max_model_len 100000000', 1, 'give at most 2048'),
    (f'infer {CHAT} --tensor_parallel_size 3', 1, 'does not divide the attention heads'),
    (f'infer {CHAT} --result_path a --save_result false', 2, 'does not go with --save_result false'),
    (f'infer {CHAT} --merge_lora true', 2, '--merge_lora needs --ckpt_dir'),
    (f'deploy {CHAT} --port 99999', 2, 'at most 65535, not 99999'),
    (f'deploy {CHAT} --ssl_keyfile notes.txt', 2, 'go together'),
    (f'sft {CHAT} {QA} --learning_rate 1e-4x', 2, "a number, not '1e-4x'"),
    (f'sft {CHAT} {QA} --lora_rank 0', 2, 'at least 1 and at most 8192, not 0'),
    (f'sft {CHAT} {QA} --lora_alpha 0', 2, 'at least 0.01, not 0'),
    (f'sft {CHAT} {QA} --seed -5', 2, '--seed must be at least 0 and at most 4294967295, not -5'),
    (f"sft {CHAT} {QA} --output_dir ''", 2, '--output_dir is empty'),
    (f'sft {CHAT} {QA} --deepspeed zero2', 2, 'set NPROC_PER_NODE=2, or leave it out'),
    (f'sft {CHAT} {QA} --lr_scheduler_type cosin', 2, "did you mean 'cosine'"),
    (f'bench throughput {CHAT} --min_input_len 10 --max_input_len 5', 2, 'is larger than --max_input_len 5'),
    (f'bench thruput {CHAT}', 2, "did you mean 'throughput'"),
    ('models qwne', 1, "did you mean 'qwen'"),
    ('doctor --jsn', 2, "did you mean '--json'"),
    # files of flags
    ('infer typo.yaml', 2, "in --config 'typo.yaml': swiftlite infer has no flag --modle_type; did you mean"),
    ('infer value.yaml', 2, "in --config 'value.yaml': --max_new_tokens takes a whole number"),
    ('infer tipo.yaml', 2, "'tipo.yaml' is no file; did you mean 'typo.yaml'"),
    ('infer --config list.yaml', 2, 'must hold one flag a line'),
    ('infer --config bad.yaml', 2, "--config 'bad.yaml', line 3 is no YAML"),
    ('infer --config twice.yaml', 2, "has 'model' twice"),
    ('infer --config env.yaml', 2, 'ENV must hold one variable a line'),
    # models and adapters
    ('infer', 2, 'no model is given'),
    ('sft --dataset good.jsonl', 2, 'no model is given'),
    ('infer --model_type tiny-chta', 2, "did you mean 'tiny-chat'"),
    (f'infer {CHAT} --template_type qwne', 2, "did you mean 'qwen'"),
    ('infer --model ./bsae', 2, "did you mean 'base'"),
    ('infer --model nowhere/Nothing-7B', 1, 'cannot be fetched from Hugging Face'),
    ('deploy --model_type qwen2_5-7b-instruct', 1, "'Qwen/Qwen2.5-7B-Instruct' cannot be fetched"),
    ('sft --model_type llama3-8b-instruct --model base --dataset good.jsonl', 2, "in 'base' are Qwen2ForCausalLM"),
    ('infer --model cut --template_type tiny-chat', 1, 'cut/model.safetensors is damaged'),
    ('infer --model noconfig', 1, 'has no config.json'),
    ('infer --model brokenconfig', 1, 'line 2'),
    ('infer --model alien', 1, "the architecture 'MambaForCausalLM' is not supported"),
    ('infer --model layers --template_type tiny-chat', 1, 'tensor(s) missing, first: model.layers.'),
    ('sft --model layers --template_type tiny-chat --dataset good.jsonl', 1, 'missing, first: model.layers.'),
    ('infer --ckpt_dir wrongargs', 1, 'gives model_type as 5, where text is expected'),
    ("infer --model ''", 2, 'no model is given'),
    ('infer --model notokenizer', 1, 'has no tokenizer'),
    ('infer --ckpt_dir lroa', 2, "did you mean 'lora'"),
    ('infer --ckpt_dir emptydir', 2, 'holds no checkpoint'),
    ('infer --ckpt_dir brokenlora --model base', 1, 'is not valid JSON'),
    ('infer --ckpt_dir noweights --model base --template_type tiny-chat', 1, 'has no adapter weights'),
    ('infer --ckpt_dir otherlora --model base --template_type tiny-chat', 1, 'trained on another base'),
    (f'deploy {CHAT} --lora_modules lora', 2, "takes name=path, not 'lora'"),
    (f'deploy {CHAT} --lora_modules a=nowhere', 1, 'a PEFT adapter folder is needed'),
    ('export', 2, 'give --merge_lora true'),
    ('merge-lora', 2, '--merge_lora needs --ckpt_dir'),
    ('merge-lora --ckpt_dir base', 2, 'there is nothing to merge'),
    ('merge-lora --ckpt_dir lora --model base --output_dir emptydir', 2, 'emptydir exists: give --overwrite true'),
    ('merge-lora --ckpt_dir otherlora --model base', 1, 'trained on another model'),
    (f'sft {CHAT} {QA} --resume_from_checkpoint emptydir', 2, 'is no checkpoint folder of swiftlite sft'),
    (f'sft {CHAT} {QA} --lora_target_modules q_proj lm_head', 2, 'lm_head is refused'),
    (f'sft {CHAT} {QA} --lora_target_modules q_prjo', 2, "did you mean 'q_proj'"),
    (f'infer {CHAT} --chat_template nowhere.jinja', 2, 'no file that can be read'),
    # data
    (f'infer {CHAT} --val_dataset godo.jsonl', 2, "did you mean 'good.jsonl'"),
    (f'infer {CHAT} --val_dataset notes.txt', 2, 'is no .jsonl, .json, .csv file'),
    (f'infer {CHAT} --val_dataset emptydir', 2, 'is a folder'),
    (f'infer {CHAT} --val_dataset empty.jsonl', 1, 'no rows are left to answer'),
    (f'infer {CHAT} --val_dataset long.jsonl', 1, 'longer than the context (first: long.jsonl, line 1)'),
    (f'infer {CHAT} --val_dataset good.jsonl#many', 2, 'a positive number of rows'),
    (f'sft {CHAT} --dataset self-cognition', 2, 'needs --model_name and --model_author'),
    (f'sft {CHAT} --dataset broken.jsonl', 1, 'broken JSON (first: broken.jsonl, line 1)'),
    (f'sft {CHAT} --dataset broken.json', 1, 'broken.json, line 2 is not valid JSON'),
    (f'sft {CHAT} --dataset object.json', 1, 'a list of rows is expected'),
    (f'sft {CHAT} --dataset latin.jsonl', 1, 'not UTF-8 text (first: latin.jsonl, line 1)'),
    (f'sft {CHAT} --dataset rows.csv', 1, 'more values than there are columns'),
    (f'sft {CHAT} --dataset columns.jsonl', 1, "'qeury' is given; did you mean 'query'"),
    (f'eval {CHAT}', 2, 'no data is given'),
    (f'eval {CHAT} --eval_dataset good.jsonl --eval_metrics rogue_l', 2, "did you mean 'rouge_l'"),
    (f'eval {CHAT} --eval_dataset good.jsonl --eval_metrics accuracy', 2, 'a multiple-choice question'),
    (f'eval {CHAT} --custom_eval_config custom.json', 2, "did you mean 'pattern'"),
    ('eval --eval_url 127.0.0.1:1 --eval_dataset good.jsonl', 2, 'is an address such as http://'),
    (
        'eval --eval_url http://127.0.0.1:1 --eval_dataset good.jsonl --max_model_len 64',
        2,
        '--max_model_len does not go with --eval_url',
    ),
    ('eval --eval_url http://127.0.0.1:1 --eval_dataset good.jsonl', 1, 'no server answers at http://127.0.0.1:1/v1'),
    # where results go, and ports
    (f'sft {CHAT} {QA} --output_dir good.jsonl/x', 1, "good.jsonl' is a file"),
    (f'infer {CHAT} --val_dataset good.jsonl --result_dir good.jsonl', 1, 'results cannot be written'),
    (f'infer {CHAT} --val_dataset good.jsonl --result_path emptydir', 2, 'is a folder: name a file in it'),
    (f'eval {CHAT} --eval_dataset good.jsonl --eval_output_dir good.jsonl', 1, 'cannot be written'),
    (f'bench throughput {CHAT} --output emptydir', 2, 'is a folder'),
    (f'deploy {CHAT} --host 127.0.0.1 --port BUSY', 1, 'is in use: give another one with --port'),
    (f'app-ui {CHAT} --host 127.0.0.1 --port BUSY', 1, 'is in use: give another one with --port'),
    (f'deploy {CHAT} --host nowhere.invalid', 1, 'cannot listen on --host nowhere.invalid'),
]


@pytest.mark.parametrize(('line', 'status', 'said'), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_one_sentence(
    line: str,
    status: int,
    said: str,
    place: Path,
    busy_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted(path for path in place.rglob('*'))
    assert run(shlex.split(line.replace('BUSY', str(busy_port)))) == status
    captured = capsys.readouterr()
    sentences = [text for text in captured.err.splitlines() if text.startswith('swiftlite: ')]
    assert len(sentences) == 1 and captured.err.rstrip('\n').endswith(sentences[0]), captured.err
    assert said in sentences[0]
    assert 'Traceback' not in captured.out + captured.err
    assert sorted(path for path in place.rglob('*')) == before, 'a mistake leaves nothing behind'


def test_the_table_is_long_and_covers_every_command() -> None:
    first = {line.split()[0] for line, _, _ in MISTAKES}
    assert len(MISTAKES) >= 60 and {'sft', 'export', 'infer', 'deploy', 'app-ui', 'eval', 'bench', 'models'} <= first


def test_the_next_good_command_works(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run(['infer', '--model', 'tiny-chta']) == 2
    words = ['--model', asset_path('tiny-chat'), '--val_dataset', 'good.jsonl', '--save_result', 'false', *EXACT_FLAGS]
    assert run(['infer', *words, '--max_new_tokens', '4']) == 0
    assert '8 answers' in capsys.readouterr().out
