"""Every command line in the README, the docs and the help is one that the parser takes."""

import re
import shlex
from pathlib import Path

import pytest

from swiftlite.cli.main import COMMANDS
from swiftlite.cli.parse import parse

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def written() -> list[tuple[str, str]]:
    """(where, command line) of each swiftlite line in a block of code, and of each example in --help."""
    found = []
    for page in PAGES:
        for block in re.findall(r'^```\w*\n(.*?)^```', page.read_text(encoding='utf-8'), re.M | re.S):
            lines = block.replace('\\\n', ' ').splitlines()
            found += [(page.name, line) for line in lines if re.match(r'swiftlite [a-z-]+( |$)', line)]
    for name, command in COMMANDS.items():
        found += [(f'{name} --help', example) for example in command.load().examples]
    return found


def test_the_readme_shows_the_main_commands():
    shown = {line.split()[1] for where, line in written() if where == 'README.md'}
    assert {'sft', 'export', 'infer', 'deploy', 'models', 'doctor'} <= shown


@pytest.mark.parametrize(('where', 'line'), written())
def test_command_line_is_understood(where, line):
    name, *words = shlex.split(line.partition(' #')[0])[1:]
    parse(COMMANDS[name].load(), words, name)
