"""What the README, the docs and the help name is there: command lines, files, extras."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from swiftlite.cli.main import COMMANDS, two_words
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
    first, *rest = shlex.split(line.partition(' #')[0])[1:]
    name, words = two_words(first, rest)
    parse(COMMANDS[name].load(), words, name)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_are_where_it_says(page):
    named = re.findall(r'`((?:[\w-]+/)+[\w.-]+\.\w+)`|\]\(([\w/.-]+)\)', page.read_text(encoding='utf-8'))
    for name in filter(None, (a or b for a, b in named)):
        assert any((folder / name).exists() for folder in (ROOT, ROOT / 'swiftlite', page.parent)), name


def test_the_readme_names_the_extras():
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['optional-dependencies']
    line = re.search(r'^Extras: (.*?)\.$', (ROOT / 'README.md').read_text(encoding='utf-8'), re.M | re.S)
    assert line and set(re.findall(r'`(\w+)`', line[1])) == set(extras)
