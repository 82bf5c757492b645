"""The blocks of docs/ that are marked to be run do run, and print what the page says."""

import contextlib
import io
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from swiftlite.cli.main import run
from tests.pages import blocks, commands, page_run

ROOT = Path(__file__).parent.parent.parent
PAGES = [page for page in sorted((ROOT / 'docs').rglob('*.md')) if blocks(page)]
QUICKSTART = ROOT / 'docs' / 'quickstart.md'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder with output/, the quickstart's training command, what it printed): trained once for all pages."""
    command = next(c for language, code in blocks(QUICKSTART) for c in commands(code) if c.startswith('swiftlite sft'))
    folder = tmp_path_factory.mktemp('trained')
    old = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert run(shlex.split(command)[1:]) == 0
    finally:
        os.chdir(old)
    return folder, command, out.getvalue()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_page(page, trained, tmp_path, monkeypatch, capsys):
    folder, command, printed = trained
    shutil.copytree(folder / 'output', tmp_path / 'output')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'docs').symlink_to(ROOT / 'docs')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    with page_run(capsys, {command: printed}) as reader:
        for language, code in blocks(page):
            reader.block(language, code)


def test_the_main_pages_are_run():
    assert {'quickstart', 'sft', 'export', 'deploy', 'migrating-from-ms-swift', 'migrating-from-vllm'} <= {
        page.stem for page in PAGES
    }
