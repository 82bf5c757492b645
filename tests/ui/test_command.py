"""`swiftlite app-ui` as it is typed."""

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from swiftlite.args.app_ui import AppUiArgs
from swiftlite.cli.main import run
from swiftlite.cli.parse import parse
from swiftlite.ui.partner import Sampling
from swiftlite.ui.remote import Remote
from tests.tiny import EXACT
from tests.ui.conftest import PageThread

QUESTION = [{'role': 'user', 'content': '你是谁？'}]


@pytest.mark.parametrize(
    ('words', 'status', 'sentence'),
    [
        ('--share true', 2, '--share true is refused'),
        ('--base_url ftp://a', 2, "--base_url must look like 'http://127.0.0.1:8000/v1', not 'ftp://a'"),
        ('--base_url http://a/v1 --model_type tiny-chat', 2, '--model_type cannot be given too'),
        ('--api_key x --model_type tiny-chat', 2, '--api_key needs --base_url'),
        ('--model_type tiny-chat --studio_lang fr', 2, "--studio_lang takes zh, en, auto, not 'fr'"),
        ('--model_type tiny-chat --port 70000', 2, '--port must be'),
        ('--base_url http://127.0.0.1:9/v1', 1, "No server answers at http://127.0.0.1:9/v1: start one with 'swif"),
        ('--model_type tiny-chat --lora_modules a=/nowhere', 1, '/nowhere'),
        ('--base_url http://127.0.0.1:9/v1 --max_model_len 64', 2, '--base_url talks to a server, so --max_model_len'),
        ('--base_url http://127.0.0.1:9/v1 --system Hi', 2, '--system cannot be given too'),
        ('--base_url http://127.0.0.1:9/v1 --seed 7', 2, '--seed cannot be given too'),
    ],
)
def test_mistakes_are_one_sentence(words: str, status: int, sentence: str, capfd: pytest.CaptureFixture[str]):
    assert run(['app-ui', '--port', '0', *words.split()]) in (status, 2 if '/nowhere' in words else status)
    error = capfd.readouterr().err
    assert sentence in error and error.startswith('swiftlite: ') and error.count('\n') == 1


@pytest.mark.parametrize('flags', ['--chat_template {%if%}', '--enable_thinking true'])
def test_a_template_that_was_asked_for_is_not_left_out(flags: str, capfd: pytest.CaptureFixture[str]):
    assert run(['app-ui', '--port', '0', '--model_type', 'tiny-chat', *flags.split(' ')]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith('swiftlite: ') and ('is no Jinja, line 1' in last or 'thinking cannot be switched' in last)


def test_a_busy_port_is_known_first(capfd: pytest.CaptureFixture[str]):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        assert run(['app_ui', '--model_type', 'tiny-chat', '--server_port', str(taken.getsockname()[1])]) == 1
    said = capfd.readouterr().err
    assert 'is in use: give another one with --port' in said and 'Loading' not in said


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    found = importlib.util.find_spec
    monkeypatch.setattr('swiftlite.cli.app_ui.find_spec', lambda name: None if name == 'gradio' else found(name))
    assert run(['app-ui', '--model_type', 'tiny-chat']) == 1
    assert "pip install 'swiftlite[ui]'" in capfd.readouterr().err


def test_names_of_other_versions():
    words = '--model tiny-chat --server_name 0.0.0.0 --server-port 7000 --lang zh --max_tokens 5'
    args = parse(AppUiArgs, words.split(), 'app-ui')
    assert (args.host, args.port, args.studio_lang, args.max_new_tokens) == ('0.0.0.0', 7000, 'zh', 5)


def test_it_says_where_it_is_and_ends_with_ctrl_c(served: PageThread):
    command = [sys.executable, '-m', 'swiftlite', 'app', '--port', '0', '--base_url', served.api]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith('Chat with tiny-chat at http://127.0.0.1:')
        url = line.split(' at ')[1].split()[0]
        answer = httpx.get(url, headers={'accept-language': 'zh-CN,en'}, follow_redirects=True, trust_env=False)
        assert str(answer.url) == f'{url}zh/' and '新对话' in answer.text
        assert "connect-src 'self'" in answer.headers['content-security-policy']
        process.send_signal(2)
        rest = process.stdout.read()
        assert process.wait(30) == 0 and rest == ''


async def test_a_server_elsewhere_answers(served: PageThread):
    remote = await Remote.connect(AppUiArgs(base_url=served.api.removesuffix('/v1'), temperature=0))
    assert remote.profile.models == ('tiny-chat',) and remote.profile.limit == 1024
    pieces = [piece async for piece in remote.chat(QUESTION, 'tiny-chat', Sampling(0.0, max_tokens=64))]
    assert ''.join(piece.text for piece in pieces).startswith('我是tiny-chat')
    assert sum(piece.tokens for piece in pieces) == 26
    with pytest.raises(Exception, match="The model 'other' does not exist"):
        _ = [piece async for piece in remote.chat(QUESTION, 'other', Sampling())]
    await remote.close()


async def test_stop_words_go_to_the_server(served: PageThread):
    args = AppUiArgs(base_url=served.api, temperature=0, stop_words=['tiny'])
    remote = await Remote.connect(args)
    pieces = [piece async for piece in remote.chat(QUESTION, 'tiny-chat', Sampling(0.0, max_tokens=64))]
    assert ''.join(piece.text for piece in pieces) == '我是'
    await remote.close()


async def test_thoughts_of_a_server_come_in_tags():
    events = [
        '{"choices": [{"delta": {"role": "assistant", "content": ""}}]}',
        '{"choices": [{"delta": {"reasoning_content": "Hm"}}]}',
        '{"choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}]}',
        '{"choices": [], "usage": {"completion_tokens": 7}}',
        '[DONE]',
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        assert b'"temperature"' not in request.content, 'what nobody changed is left to the server'
        return httpx.Response(200, text=''.join(f'data: {event}\n\n' for event in events))

    remote = Remote('http://server/v1', None, Sampling())
    remote._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    pieces = [piece async for piece in remote.chat(QUESTION, 'm', Sampling())]
    assert ''.join(piece.text for piece in pieces) == '<think>\nHm\n</think>\n\nYes.'
    assert sum(piece.tokens for piece in pieces) == 7
    events[-2:] = ['{"error": {"message": "The engine died."}}']
    with pytest.raises(Exception, match=r'^The engine died\.$'):
        _ = [piece async for piece in remote.chat(QUESTION, 'm', Sampling())]
    await remote.close()


def test_same_words_as_infer(served: PageThread, tmp_path: Path):
    """The page's prompt is the template's, so its greedy answer is what infer says."""
    from swiftlite.args.infer import InferArgs
    from swiftlite.infer.session import Session
    from swiftlite.infer.setup import prepare

    args = InferArgs(model_type='tiny-chat', temperature=0, max_model_len=1024, **EXACT)
    session = Session(prepare(args), args)
    messages: list[dict[str, Any]] = [{'role': 'system', 'content': 'Be brief.'}, *QUESTION]
    expected = ''.join(delta.text for _, delta in session.answer([session.encode(messages)]))
    session.close()

    async def chat() -> str:
        sampling = Sampling(temperature=0, max_tokens=256)
        return ''.join([piece.text async for piece in served.partner.chat(messages, 'tiny-chat', sampling)])

    assert served.call(chat()) == expected != ''
