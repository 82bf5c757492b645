"""Runs the blocks of a documentation page that are marked to be run, as a reader would: in order, in one folder.

A block is run if its info string ends in ``run``: ```` ```bash run ```` or ```` ```python run ````. A line that ends in
``# prints TEXT`` must print TEXT; one that ends in ``# fails TEXT`` must fail and say TEXT in one line. Ports 8000 and
7860 become free ones; ``swiftlite deploy … &`` is waited for.
"""

import contextlib
import io
import random
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swiftlite.cli.main import run

BLOCK = re.compile(r'^```(bash|python) run\n(.*?)^```', re.M | re.S)
PRINTS = re.compile(r'\s+# prints (.*)$', re.M)
FAILS = re.compile(r'\s+# fails (.*)$', re.M)
COMMENT = re.compile(r'\s+# .*$', re.M)
SHELL = re.compile(r'[|<>;&$`]|^[A-Z_]+=')  # what only a shell understands
PORTS = ('8000', '7860')
START = 120  # seconds that a server has to answer


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of each block that is run."""
    return BLOCK.findall(page.read_text(encoding='utf-8'))


def commands(code: str) -> Iterator[str]:
    """The commands of a shell block, continuation lines and here-documents kept together; no comments alone."""
    lines = iter(code.splitlines())
    for line in lines:
        while line.endswith('\\'):
            line = line[:-1] + next(lines).lstrip()
        if end := re.search(r"<<'?(\w+)'?", line):
            while not line.endswith(f'\n{end[1]}'):
                line += '\n' + next(lines)
        if line.strip() and not line.startswith('#'):
            yield line


@dataclass
class PageRun:
    """One page being run in the current folder; `skip` holds commands whose output is there already."""

    capture: pytest.CaptureFixture[str]
    skip: dict[str, str] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in PORTS})

    def block(self, language: str, code: str) -> None:
        for port, free in self.ports.items():
            code = re.sub(rf'\b{port}\b', free, code)
        if language == 'python':
            self.capture.readouterr()
            exec(compile(code, 'page', 'exec'), self.names)
            expect(self.capture.readouterr().out, PRINTS.findall(code), code)
            return
        for command in commands(code):
            if said := FAILS.search(command):
                self.failure(COMMENT.sub('', command), said[1])
                continue
            wanted = PRINTS.findall(command)
            expect(self.shell(COMMENT.sub('', command)), wanted, command)

    def shell(self, command: str) -> str:
        """What one command writes to stdout; AssertionError if it fails."""
        if command in self.skip:
            return self.skip[command]
        if command.endswith(' &'):
            self.start(command.removesuffix(' &'))
            return ''
        source, pipe, last = command.rpartition(' | ')
        if last.startswith('swiftlite ') and not SHELL.search(last):
            typed = self.shell(source) if pipe else ''
            self.capture.readouterr()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, 'stdin', io.StringIO(typed))
                status = run(shlex.split(last)[1:])
            out, err = self.capture.readouterr()
            assert status == 0, f'{command}\n{out}\n{err}'
            return out
        done = subprocess.run(['bash', '-ec', command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
        return done.stdout

    def failure(self, command: str, said: str) -> None:
        """Run a swiftlite command that must end with one sentence."""
        self.capture.readouterr()
        status = run(shlex.split(command)[1:])
        out, err = self.capture.readouterr()
        sentence = err.strip().splitlines()[-1]
        assert status in (1, 2) and said in sentence, f'{command}\n{out}\n{err}'
        assert sentence.startswith('swiftlite: ') and 'Traceback' not in err, err

    def start(self, command: str) -> None:
        """Start a server and wait until it answers on the first of the ports that the command names."""
        self.servers.append(subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        port = next(free for free in self.ports.values() if free in command)
        end = time.monotonic() + START
        while time.monotonic() < end:
            assert self.servers[-1].poll() is None, self.servers[-1].stderr.read()  # type: ignore[union-attr]
            try:
                with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=5):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 404:  # a page, not an API
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        raise AssertionError(f'no answer from: {command}')

    def stop(self) -> None:
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.communicate(timeout=60)


def free_port() -> int:
    """One below those that the system hands out, so that nobody is given it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(('127.0.0.1', port))
            return port


@contextlib.contextmanager
def page_run(capture: pytest.CaptureFixture[str], skip: dict[str, str]) -> Iterator[PageRun]:
    page = PageRun(capture, skip)
    try:
        yield page
    finally:
        page.stop()


def expect(out: str, wanted: list[str], where: str) -> None:
    for text in wanted:
        assert text in out, f'{where}\nprinted\n{out}'
