"""The terminal chat, in a real terminal."""

import codecs
import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.served import tiny_chat_checkpoint
from tests.tiny import EXACT_FLAGS, tiny_adapter

# makes the pseudo-terminal the one that Ctrl-C comes from
LAUNCH = 'import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])'


class Terminal:
    """`swiftlite infer …` on a pseudo-terminal."""

    def __init__(self, *arguments: str, state: Path) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, '-c', LAUNCH, sys.executable, '-m', 'swiftlite', 'infer', *EXACT_FLAGS]
        command += arguments
        env = os.environ | {'OMP_NUM_THREADS': '1', 'TERM': 'dumb', 'XDG_STATE_HOME': str(state)}
        ends = {'stdin': slave, 'stdout': slave, 'stderr': slave}
        self.process = subprocess.Popen(command, env=env, start_new_session=True, **ends)
        os.close(slave)
        self.screen = ''
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')

    def __enter__(self) -> 'Terminal':
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self, pattern: str) -> None:
        """Ctrl-C at the prompt, again if need be: between the prompt and readline's waiting it goes unseen."""
        for _ in range(30):
            self.send('\x03')
            with contextlib.suppress(AssertionError):
                self.until(pattern, timeout=4)
                return
        raise AssertionError(f'Ctrl-C did nothing:\n{self.screen}')

    def _read(self) -> None:
        self.screen += self._decoder.decode(os.read(self.master, 65536)).replace('\r', '')

    def until(self, pattern: str, timeout: float = 120) -> str:
        """New output up to `pattern`, taken off the screen."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f'{pattern!r} did not come:\n{self.screen}'
            try:
                self._read()
            except OSError:
                raise AssertionError(f'{pattern!r} did not come before the end:\n{self.screen}') from None
        seen, self.screen = self.screen[: match.end()], self.screen[match.end() :]
        return seen

    def end(self) -> int:
        """The exit status, once the process has ended; what it still prints is added to the screen."""
        while True:
            try:
                self._read()
            except OSError:
                return self.process.wait(60)


@pytest.fixture(scope='module')
def long_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_checkpoint(tmp_path_factory.mktemp('long'), max_position_embeddings=32768)


def test_conversation(long_checkpoint: Path, tmp_path: Path) -> None:
    """History, clear, reset-system, several lines, Ctrl-C, line editing and the file of the conversation."""
    arguments = [
        '--model',
        str(long_checkpoint),
        '--template_type',
        'tiny-chat',
        '--temperature',
        '0.9',
        '--top_k',
        '300',
    ]
    arguments += ['--max_new_tokens', '20000', '--result_dir', str(tmp_path)]
    with Terminal(*arguments, state=tmp_path / 'state') as terminal:
        terminal.until('Ctrl-C stops an answer.\n<<< ')
        terminal.interrupt('leaves.\n<<< ')

        def ask(text: str) -> None:
            terminal.send(text)
            terminal.until(f'{text[-2]}\n(?s:.+)')  # the line's echo, then some of the answer
            terminal.send('\x03')  # the answers of a random model have no end
            terminal.until(r'<<<(\[M\])? ')

        ask('first\n')
        ask('seconf\x7fd\n')
        terminal.send('clear\n')
        terminal.until('forgotten.\n<<< ')
        ask('third\n')
        terminal.send('reset-system\n')
        terminal.until(r'<<<\[S\] ')
        terminal.send('Be brief.\n')
        terminal.until('new system prompt.\n<<< ')
        ask('你好\n')
        terminal.send('multi-line\n')
        terminal.until(r'<<<\[M\] ')
        ask('one\ntwo#\n')
        terminal.send('clear\n')  # a command needs no #
        terminal.until(r'forgotten.\n<<<\[M\] ')
        terminal.send('single-line\n')
        terminal.until('one message.\n<<< ')
        terminal.send('\x04')
        assert terminal.end() == 0
        assert 'Traceback' not in terminal.screen
        path = re.search(r'conversation: (.*\.jsonl)', terminal.screen)[1]
    rows = [json.loads(line) for line in Path(path).read_text(encoding='utf-8').splitlines()]
    assert [r['query'] for r in rows] == ['first', 'second', 'third', '你好', 'one\ntwo']
    assert [len(r['history']) for r in rows] == [0, 1, 0, 0, 1]
    assert rows[1]['history'][0] == ['first', rows[0]['response']]
    assert [r['system'] for r in rows] == [None, None, None, 'Be brief.', 'Be brief.']
    assert all(r['response'] and r['label'] is None for r in rows)


def test_exit_and_piped_input(checkpoint: Path, tmp_path: Path) -> None:
    """Without a terminal the same commands work; a conversation that grows too long is refused with a way out."""
    command = [sys.executable, '-m', 'swiftlite', 'infer', '--model', str(checkpoint), '--template_type', 'tiny-chat']
    command += [
        *EXACT_FLAGS,
        '--save_result',
        'false',
        '--max_new_tokens',
        '5',
        '--max_model_len',
        '64',
        '--stream',
        'false',
    ]
    given = 'hi\n' + 'long ' * 40 + '\nexit\nnever\n'
    result = subprocess.run(command, input=given, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 1, 'a message was not answered'
    assert result.stdout.count('\n') == 1 and '<<<' not in result.stdout, 'the answer and nothing else'
    assert 'the model takes 64 in all' in result.stderr and "'clear' begins anew" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_pipe_that_is_no_text_or_lacks_a_mark(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'swiftlite', 'infer', '--model', str(checkpoint), '--template_type', 'tiny-chat']
    command += [*EXACT_FLAGS, '--result_path', 'talk.jsonl', '--max_new_tokens', '3']
    env = os.environ | {'PYTHONIOENCODING': 'utf-8:strict', 'OMP_NUM_THREADS': '1'}
    given = b'multi-line\none\ntwo#\nthree\nfour\nfive'
    result = subprocess.run(command, input=given, capture_output=True, cwd=tmp_path, env=env, timeout=60)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / 'talk.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [r['query'] for r in rows] == ['one\ntwo', 'three\nfour\nfive']
    result = subprocess.run(command, input=b'\xff\xfe\n', capture_output=True, cwd=tmp_path, env=env, timeout=60)
    assert result.returncode == 1 and b'not UTF-8 text' in result.stderr and b'Traceback' not in result.stderr


def test_recall_completion_and_adapters(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """Up brings back what an earlier run read, Tab completes a command, and switch-lora changes who answers."""
    other = tiny_adapter(tmp_path / 'other', checkpoint, seed=5)
    arguments = ['--model', str(checkpoint), '--template_type', 'tiny-chat', '--max_new_tokens', '8']
    arguments += ['--temperature', '0', '--result_path', str(tmp_path / 'talk.jsonl')]
    with Terminal(*arguments, state=tmp_path / 'state') as terminal:
        terminal.until('an answer.\n<<< ')
        terminal.send('hello again\n')
        terminal.until('<<< ')
        terminal.send('exit\n')
        assert terminal.end() == 0
    arguments += ['--lora_modules', f'one={adapter}', f'two={other}']
    with Terminal(*arguments, state=tmp_path / 'state') as terminal:
        assert ' with one' in terminal.until('an answer.\n<<< ')
        terminal.send('\x1b[A\x1b[A\x01well \n')  # Up over exit, to the start of the line
        terminal.until('<<< ')
        for name in ('two', '', 'tow'):
            terminal.send('sw\t\n')
            terminal.until('base model. ')
            terminal.send(f'{name}\n')
            terminal.until("did you mean 'two'.*\n<<< " if name == 'tow' else 'come from.*\n<<< ')
            if name != 'tow':
                terminal.send('clear\nwell hello again\n')
                terminal.until('forgotten(?s:.)*<<< (?s:.)*<<< ')
        terminal.send('\x04')
        assert terminal.end() == 0
    rows = [json.loads(line) for line in (tmp_path / 'talk.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [r['query'] for r in rows] == ['hello again', *['well hello again'] * 3]
    assert len({r['response'] for r in rows[1:]}) == 3, 'one, two and the base model answer differently'
    assert (tmp_path / 'state' / 'swiftlite' / 'infer_history').stat().st_mode & 0o077 == 0
