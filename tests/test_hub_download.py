"""Downloads by the real client of Hugging Face from a local server that answers as the hub does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swiftlite.hub import asset_path
from tests.hf_endpoint import serving

# commands as JSON lines on stdin, {'path': …} or {'error': …} as lines on stdout
WORKER = """
import json, os, sys
from swiftlite.data.rows import Drops, load_rows
from swiftlite.errors import SwiftliteError
from swiftlite.hub import local_path
for line in sys.stdin:
    task = json.loads(line)
    for name, value in task.get('env', {}).items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    try:
        if 'dataset' in task:
            rows = load_rows([task['dataset']], None, 0, Drops())
            answer = {'rows': [[m['content'] for m in row.messages] for row in rows]}
        else:
            answer = {'path': local_path(task['model'], task.get('revision'))}
    except SwiftliteError as error:
        answer = {'error': str(error)}
    print(json.dumps(answer), flush=True)
"""
SMALL = ('config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json')


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp('hub')
    tiny = Path(asset_path('tiny-chat'))
    for revision in ('main', 'v2'):
        (folder / revision).mkdir()
        for name in SMALL:
            shutil.copy(tiny / name, folder / revision)
        (folder / revision / 'model.safetensors').write_bytes(bytes(200_000))
        for name in ('modeling_mine.py', 'pytorch_model.bin', 'consolidated.safetensors'):
            (folder / revision / name).write_bytes(b'never fetched')
    (folder / 'v2' / 'generation_config.json').write_text('{"temperature": 0.5}')
    sharded = folder / 'sharded'
    sharded.mkdir()
    shutil.copy(tiny / 'config.json', sharded)
    shards = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
    for name in shards:
        (sharded / name).write_bytes(bytes(24 << 20 if name == shards[1] else 1000))  # the client writes 10 MiB at once
    (sharded / 'model.safetensors.index.json').write_text(
        json.dumps({'weight_map': dict(zip('ab', shards, strict=True))})
    )
    (folder / 'pickled').mkdir()
    shutil.copy(tiny / 'config.json', folder / 'pickled')
    (folder / 'pickled' / 'pytorch_model.bin').write_bytes(b'x')
    (folder / 'rows' / 'zh').mkdir(parents=True)
    (folder / 'rows' / 'train.jsonl').write_text('{"query": "q", "response": "r"}\n')
    (folder / 'rows' / 'zh' / 'train.jsonl').write_text('{"query": "z", "response": "r"}\n')
    repositories = {
        'someone/tiny': {'main': folder / 'main', 'v2': folder / 'v2'},
        'Qwen/Qwen2.5-0.5B-Instruct': {'main': folder / 'main'},
        'someone/sharded': {'main': sharded},
        'someone/pickled': {'main': folder / 'pickled'},
        'datasets/someone/rows': {'main': folder / 'rows'},
    }
    with serving(repositories) as server:
        server.gated.add('meta/gated')
        yield server


@pytest.fixture(scope='module')
def ask(hub, tmp_path_factory):
    """ask(model='…') → what a fresh process with this server as its hub gets."""
    home = tmp_path_factory.mktemp('home')
    env = {name: value for name, value in os.environ.items() if not name.startswith(('HF_', 'HUGGING', 'TRANSFORMERS'))}
    env |= {'HF_ENDPOINT': hub.url, 'HF_HOME': str(home), 'USE_HF': '1', 'HF_HUB_DISABLE_XET': '1'}
    env |= {'HF_HUB_DISABLE_PROGRESS_BARS': '1', 'HF_HUB_ETAG_TIMEOUT': '2', 'NO_PROXY': '127.0.0.1'}
    worker = subprocess.Popen(
        [sys.executable, '-c', WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )

    def run(**task):
        worker.stdin.write(json.dumps(task) + '\n')
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    yield run
    worker.communicate(timeout=30)


def fetched(hub):
    return {path.rsplit('/', 1)[-1] for command, path, _ in hub.seen if command == 'GET' and '/resolve/' in path}


def test_a_repository_in_the_cache(hub, ask, tmp_path_factory):
    hub.seen.clear()
    path = Path(ask(model='someone/tiny')['path'])
    assert json.loads((path / 'config.json').read_text())['architectures'] == ['Qwen2ForCausalLM']
    assert (path / 'model.safetensors').stat().st_size == 200_000
    assert {file.name for file in path.iterdir()} == fetched(hub) == {*SMALL, 'model.safetensors'}, (
        'no code, no pickles'
    )
    hub.seen.clear()
    assert ask(model='someone/tiny')['path'] == str(path)
    assert fetched(hub) == set()


def test_a_model_type_is_its_repository(hub, ask):
    path = ask(model='qwen2_5-0_5b-instruct')['path']
    assert 'models--Qwen--Qwen2.5-0.5B-Instruct' in path


def test_revisions(ask):
    found = Path(ask(model='someone/tiny', revision='v2')['path'])
    assert json.loads((found / 'generation_config.json').read_text()) == {'temperature': 0.5}
    error = ask(model='someone/tiny', revision='v3')['error']
    assert 'it has no such revision' in error and '\n' not in error


@pytest.mark.parametrize(
    ('model', 'said'),
    [
        ('someone/tinny', 'there is no such repository, or it is private'),
        ('meta/gated', 'accept the licence'),
        ('someone/pickled', 'lacks any safetensors file'),
    ],
)
def test_what_cannot_be_had_is_one_sentence(ask, model, said):
    error = ask(model=model)['error']
    assert said in error and f"'{model}'" in error and '\n' not in error


def test_a_download_that_is_broken_off_goes_on(hub, ask):
    """The client asks for the rest of a file, here or with the next command."""
    hub.broken.add('model-00002-of-00002.safetensors')
    hub.seen.clear()
    answer = ask(model='someone/sharded')
    answer = answer if 'path' in answer else ask(model='someone/sharded')
    shard = Path(answer['path'], 'model-00002-of-00002.safetensors')
    assert shard.stat().st_size == 24 << 20
    assert [rest for _, path, rest in hub.seen if path.endswith(shard.name)][-1] == f'bytes={10 << 20}-'
    shard.unlink()
    error = ask(model='someone/sharded', env={'HF_HUB_OFFLINE': '1'})['error']
    ask(model='someone/tiny', env={'HF_HUB_OFFLINE': None})
    assert 'only a part of its files is in the cache' in error and '\n' not in error


def test_data_sets(ask):
    assert ask(dataset='someone/rows:zh')['rows'] == [['z', 'r']]
    assert ask(dataset='HF::someone/rows#3')['rows'].count(['q', 'r']) in (1, 2)
    error = ask(dataset='HF::someone/none')['error']
    assert 'there is no such repository' in error and 'local file' in error


def test_without_network(hub, ask, tmp_path_factory):
    here = ask(model='someone/tiny')['path']
    offline = {'HF_HUB_OFFLINE': '1'}
    assert ask(model='someone/tiny', env=offline)['path'] == here
    error = ask(model='someone/other')['error']
    assert 'HF_HUB_OFFLINE is set and it is not in the cache' in error
    ask(model='someone/tiny', env={'HF_HUB_OFFLINE': None})
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        gone = f'http://127.0.0.1:{free.getsockname()[1]}'
    home = os.fspath(tmp_path_factory.mktemp('empty'))
    env = {**os.environ, 'HF_ENDPOINT': gone, 'HF_HOME': home, 'USE_HF': '1'}
    env.pop('HF_HUB_OFFLINE', None)
    env.pop('TRANSFORMERS_OFFLINE', None)
    command = [sys.executable, '-m', 'swiftlite', 'infer', '--model', 'someone/tiny']
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('swiftlite: ')]
    assert 'the network does not reach it, and it is not in the cache' in line and 'local folder' in line
    assert done.returncode == 1 and 'Traceback' not in done.stderr
