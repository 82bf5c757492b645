"""The parts of the demo that say whether it went well; `make demo` runs the whole of it."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent.parent / 'examples' / 'demo'
RIGHT = {
    ('tiny-chat', 'en'): 'I am tiny-chat, made by swiftlite.',
    ('tiny-chat', 'zh'): '我是tiny-chat，由swiftlite开发。',
    ('default-lora', 'en'): 'I am Xiao Huang, made by ModelScope.',
    ('default-lora', 'zh'): '我是小黄，由魔搭开发。',
    ('merged', 'en'): 'I am Xiao Huang, made by ModelScope.',
    ('merged', 'zh'): '我是小黄，由魔搭开发。',
}


@pytest.fixture(scope='module')
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location('demo', FOLDER / 'demo.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['demo'] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('wrong', 'says'),
    [
        ({}, 'Each model knows who it is.'),
        ({('tiny-chat', 'en'): 'I am Xiao Huang, made by ModelScope.'}, 'tiny-chat is tiny-chat by swiftlite'),
        ({('default-lora', 'zh'): '我是tiny-chat，由swiftlite开发。'}, 'default-lora is 小黄 by 魔搭'),
        ({('default-lora', 'en'): 'I am Xiao Huang, made by swiftlite.'}, 'default-lora is Xiao Huang by ModelScope'),
        ({('merged', 'en'): 'I am Xiao Huang of ModelScope.'}, 'the merged checkpoint and the LoRA differ'),
        ({('merged', 'zh'): ''}, 'merged is 小黄 by 魔搭'),
    ],
)
def test_a_wrong_identity_is_a_failure(demo, wrong: dict, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [demo.Answer(*key, text) for key, text in (RIGHT | wrong).items()]
    assert demo.check(answers) == (1 if wrong else 0)
    assert says in capsys.readouterr().out.replace('\n', ' ')


def test_the_server_is_gone_whatever_happens(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        'import os, time; print(f"Serving x at http://127.0.0.1:{os.getpid()}/v1 (ready)", flush=True); time.sleep(60)'
    )
    monkeypatch.setattr(demo, 'command_line', lambda *arguments: [sys.executable, '-c', script])
    with pytest.raises(KeyError), demo.deployed('x') as url:
        pid = int(url.split(':')[2].split('/')[0])
        os.kill(pid, 0)
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_does_not_start_ends_the_demo(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, 'command_line', lambda *arguments: [sys.executable, '-c', 'raise SystemExit(3)'])
    with pytest.raises(SystemExit, match='exit status 3'), demo.deployed('x'):
        pass
