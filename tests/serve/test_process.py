"""`swiftlite deploy` as a process: names, signals, a dying engine."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from swiftlite.args.deploy import DeployArgs
from swiftlite.engine.process.child import EngineProcess
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.serve import early, server
from swiftlite.serve.server import run
from tests.served import ServerProcess, sse, tiny_chat_checkpoint

HELLO = [{'role': 'user', 'content': 'hi'}]
LONG = {'messages': HELLO, 'ignore_eos': True, 'max_tokens': 800}


class Background(threading.Thread):
    """A request in a thread; `answer` after `join`."""

    def __init__(self, url: str, body: dict) -> None:
        super().__init__()
        self.url, self.body = url, body
        self.answer: httpx.Response | Exception
        self.lines: list[str] = []
        self.first = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream('POST', f'{self.url}/v1/chat/completions', json=self.body, timeout=60) as answer:
                for line in answer.iter_lines():
                    self.lines.append(line)
                    self.first.set()
                self.answer = answer
        except Exception as error:
            self.answer = error
        self.first.set()


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('long'), max_position_embeddings=4096)


@pytest.fixture
def deployed(model: Path, adapter: Path):
    arguments = ['--model', str(model), '--template_type', 'tiny-chat', '--lora_modules', f'tuner-a={adapter}']
    with ServerProcess(*arguments, '--shutdown_timeout', '20', '--max_num_seqs', '4') as process:
        yield process


def two_running(deployed: ServerProcess, extra: dict | None = None) -> tuple[Background, Background]:
    """A streamed and a whole request, both being generated."""
    streamed = Background(deployed.url, LONG | {'stream': True})
    whole = Background(deployed.url, LONG | (extra or {}))
    deadline = time.monotonic() + 60
    while not re.search(r'num_requests_running.* 2.0', httpx.get(f'{deployed.url}/metrics').text):
        assert time.monotonic() < deadline, streamed.lines
    assert streamed.first.wait(60)
    return streamed, whole


def test_names_signal_and_orderly_end(deployed: ServerProcess, model: Path) -> None:
    names = [card['id'] for card in httpx.get(f'{deployed.url}/v1/models').json()['data']]
    assert names == [str(model), 'tuner-a']
    ready = next(line for line in deployed.lines if line.startswith('Serving'))
    assert f'{model}, tuner-a at {deployed.url}/v1 (ready after ' in ready
    streamed, whole = two_running(deployed, {'model': 'tuner_a'})
    os.killpg(deployed.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    deployed.wait_for('Finishing 2 running requests')
    with pytest.raises(httpx.ConnectError):
        httpx.get(f'{deployed.url}/health')
    streamed.join()
    whole.join()
    assert list(sse(iter(streamed.lines)))[-1]['choices'][0]['finish_reason'] == 'length'
    assert whole.answer.status_code == 200 and json.loads(whole.lines[0])['usage']['completion_tokens'] == 800
    assert deployed.process.wait(60) == 0
    assert 'Traceback' not in ''.join(deployed.lines)


def test_shutdown_timeout_cuts_with_an_error(model: Path) -> None:
    arguments = ['--model', str(model), '--template_type', 'tiny-chat', '--shutdown_timeout', '0']
    with ServerProcess(*arguments) as deployed:
        streamed, whole = two_running(deployed)
        deployed.process.terminate()
        streamed.join()
        whole.join()
        assert list(sse(iter(streamed.lines)))[-1]['error']['code'] == 503
        assert whole.answer.status_code == 503
        assert deployed.process.wait(60) == 0


def test_a_body_that_never_comes_does_not_hold_up_the_end(model: Path) -> None:
    head = (
        'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n'
    )
    arguments = ['--model', str(model), '--template_type', 'tiny-chat', '--shutdown_timeout', '600']
    with ServerProcess(*arguments) as deployed:
        with socket.create_connection(('127.0.0.1', int(deployed.url.rsplit(':', 1)[1]))) as slow:
            slow.sendall(f'{head}{{"messages": '.encode())
            assert httpx.get(f'{deployed.url}/health').status_code == 200
            streamed, whole = two_running(deployed)
            deployed.process.terminate()
            assert deployed.process.wait(120) == 0
        streamed.join()
        whole.join()
        assert list(sse(iter(streamed.lines)))[-1]['choices'][0]['finish_reason'] == 'length'
        assert whole.answer.status_code == 200
        assert 'Traceback' not in ''.join(deployed.lines)


def test_second_signal_ends_at_once(deployed: ServerProcess) -> None:
    streamed = Background(deployed.url, LONG | {'stream': True})
    assert streamed.first.wait(60)
    engine = deployed.engine_pid()
    deployed.process.terminate()
    deployed.wait_for('Finishing')
    deployed.process.terminate()
    assert deployed.process.wait(60) == 1
    streamed.join()
    deadline = time.monotonic() + 60
    while Path(f'/proc/{engine}').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f'/proc/{engine}').exists(), 'the engine process outlived the server'


def test_killed_engine_gives_503_and_is_started_again(deployed: ServerProcess, adapter: Path, tmp_path: Path) -> None:
    """Its adapters come back, but for one whose files are gone by then: that leaves the list of models."""
    lost = tmp_path / 'lost'
    shutil.copytree(adapter, lost)
    body = {'lora_name': 'lost', 'lora_path': str(lost)}
    assert httpx.post(f'{deployed.url}/v1/load_lora_adapter', json=body).status_code == 200
    shutil.rmtree(lost)
    good = {'messages': HELLO, 'max_tokens': 8, 'model': 'tuner-a'}
    before = httpx.post(f'{deployed.url}/v1/chat/completions', json=good).json()['choices']
    streamed, whole = two_running(deployed)
    os.kill(deployed.engine_pid(), signal.SIGKILL)
    streamed.join()
    whole.join()
    assert whole.answer.status_code == 503 and whole.answer.headers['Retry-After'] == '5'
    assert json.loads(whole.lines[0])['error']['code'] == 503
    last = list(sse(iter(streamed.lines)))[-1]
    assert last['error']['code'] == 503 and last['error']['type'] == 'ServiceUnavailableError'
    assert httpx.get(f'{deployed.url}/health').status_code == 503
    assert httpx.post(f'{deployed.url}/v1/chat/completions', json=good).status_code == 503
    deadline = time.monotonic() + 60
    while httpx.get(f'{deployed.url}/health').status_code != 200:
        assert time.monotonic() < deadline, 'the engine was not started again'
        time.sleep(0.1)
    after = httpx.post(f'{deployed.url}/v1/chat/completions', json=good).json()['choices']
    assert after == before, 'the adapter is back, too'
    deployed.wait_for("Adapter 'lost' was not loaded again")
    assert [card['id'] for card in httpx.get(f'{deployed.url}/v1/models').json()['data']][1:] == ['tuner-a']
    gone = httpx.post(f'{deployed.url}/v1/chat/completions', json=good | {'model': 'lost'})
    assert gone.status_code == 404 and 'tuner-a' in gone.json()['error']['message']


def test_what_cannot_start_is_one_sentence(model: Path, tmp_path: Path) -> None:
    """Both are known before a model is loaded."""
    with socket.create_server(('127.0.0.1', 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(SwiftliteError, match=f'Port {port} of 127.0.0.1 is in use: give another one'):
            run(DeployArgs(model_id_or_path=str(model), host='127.0.0.1', port=port))
    with pytest.raises(SwiftliteError, match=f'{tmp_path} is not a PEFT adapter'):
        run(DeployArgs(model_id_or_path=str(model), port=0, lora_modules=[f'a={tmp_path}']))
    with pytest.raises(SwiftliteError, match='cannot be used: No such file'):
        run(DeployArgs(model_id_or_path=str(model), port=0, ssl_keyfile='no.key', ssl_certfile='no.crt'))
    with pytest.raises(SwiftliteError, match='the chat template is no Jinja, line 1'):
        run(DeployArgs(model_id_or_path=str(model), port=0, chat_template='{% for m in'))


def test_ctrl_c_while_loading_leaves_no_trace(model: Path) -> None:
    command = [sys.executable, '-m', 'swiftlite', 'deploy', '--model', str(model), '--port', '0']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        assert process.stdout.readline().startswith('Loading')
        time.sleep(0.3)  # the engine process is being started
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, '')


def test_engine_that_dies_while_loading_is_one_sentence(model: Path) -> None:
    command = [sys.executable, '-m', 'swiftlite', 'deploy', '--model', str(model), '--port', '0']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        assert process.stdout.readline().startswith('Loading')
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        while not (engine := children.read_text().split()):
            time.sleep(0.01)
        os.kill(int(engine[0]), signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert rest == 'swiftlite: The engine process ended unexpectedly (exit status -9).\n'


def test_behind_https_with_keys_names_and_a_template(tmp_path: Path) -> None:
    """vLLM's spellings of the flags of a server that is open to others."""
    key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
    command += ['-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
    try:
        subprocess.run([*command, '-keyout', key, '-out', certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip('there is no openssl to make a certificate with')
    template = tmp_path / 'shout.jinja'
    template.write_text(
        '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n{% endfor %}'
        '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
    )
    flags = ['--model', 'tiny-chat', '--served-model-name', 'one', 'two', '--api-key', 'first', 'second']
    flags += ['--ssl-keyfile', str(key), '--ssl-certfile', str(certificate), '--chat-template', str(template)]
    flags += ['--max-queued-requests', '3', '--max-num-seqs', '2', '--request-timeout', '50', '--max-body-size', '0.01']
    flags += ['--max-model-len', '1024', '--allowed-origins', '["*"]', '--log-interval', '0.2', '--verbose', 'false']
    with ServerProcess(*flags) as deployed:
        assert deployed.url.startswith('https://')
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=deployed.url, verify=trusted, timeout=60) as client:
            assert client.get('/v1/models').status_code == 401
            assert client.get('/v1/models', headers={'Authorization': 'Bearer third'}).status_code == 401
            client.headers['Authorization'] = 'Bearer second'
            cards = client.get('/v1/models', headers={'Origin': 'https://any.example'})
            assert [card['id'] for card in cards.json()['data']] == ['one', 'two']
            assert cards.json()['data'][0]['max_model_len'] == 1024
            assert cards.headers['access-control-allow-origin'] == '*'
            messages = [{'role': 'user', 'content': 'hi'}]
            ids = client.post('/tokenize', json={'messages': messages}).json()['tokens']
            text = client.post('/detokenize', json={'tokens': ids}).json()['prompt']
            assert text == '<|im_start|>user\nHI<|im_end|>\n<|im_start|>assistant\n'
            for name in ('one', 'two', 'tiny-chat'):
                body = {'model': name, 'messages': messages, 'max_tokens': 60, 'ignore_eos': True}
                answer = client.post('/v1/chat/completions', json=body)
                assert answer.status_code == 200 and answer.json()['usage']['completion_tokens'] == 60
            assert client.post('/v1/completions', json={'prompt': 'a', 'n': 6}).status_code == 400
            assert client.post('/v1/completions', json={'prompt': 'a' * 11_000}).status_code == 413
        deployed.wait_for(r'tokens/s, KV cache \d+ % used', timeout=60)
        with pytest.raises(httpx.ConnectError, match='certificate'):
            httpx.get(deployed.url)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(deployed.url.replace('https', 'http'))
    printed = ''.join(deployed.lines)
    assert '/v1/chat/completions' not in printed and 'Traceback' not in printed


@pytest.mark.parametrize(
    ('modules', 'words'),
    [
        (['tiny-chat={adapter}'], "names 'tiny-chat', which is the base model"),
        (
            ['{"name": "a", "path": "{adapter}", "base_model_name": "other"}'],
            "puts 'a' on 'other', which is no name of the base model",
        ),
    ],
)
def test_adapters_that_do_not_fit_the_names(adapter: Path, model: Path, modules: list[str], words: str) -> None:
    modules = [flag.replace('{adapter}', str(adapter)) for flag in modules]
    with pytest.raises(UsageError, match=words):
        run(DeployArgs(model_id_or_path=str(model), served_model_name=['tiny-chat'], port=0, lora_modules=modules))


def test_a_server_that_cannot_start_leaves_no_engine_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def refuse(args: DeployArgs, process: EngineProcess) -> int:
        seen.append(process)
        raise SwiftliteError('no')

    monkeypatch.setattr(server, 'run', refuse)
    with pytest.raises(SwiftliteError, match='no'):
        early.run(DeployArgs(model_type='tiny-chat'))
    assert seen[0].process.poll() is not None
