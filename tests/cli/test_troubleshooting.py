"""The sentences that docs/troubleshooting.md explains are sentences of the source; flags in the docs exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from swiftlite.args.inventory import MS_SWIFT, MS_SWIFT_LATER
from swiftlite.args.refused import TABLES
from swiftlite.cli.main import COMMANDS
from swiftlite.cli.parse import flags
from swiftlite.registry.vllm_flags import ENGINE, SERVER

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / 'docs' / 'troubleshooting.md'
ROW = re.compile(r'^\| `([^`]+)`', re.M)
PAGES = [
    page
    for page in (ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')), ROOT / 'configs' / 'README.md')
    if page.name not in ('flags.md', 'cli-reference.md')
]
# flags of other programs that pages show
OTHERS = {'--logdir', '--nproc_per_node', '--check', '--help', '--version', '--name', '--flag', '--config', '--no-name'}
# and those that must fail, with the nearest one in the answer
OTHERS |= {'--checks', '--continue-on-failure'}  # of schemathesis
WRONG = {'--lora_rnak', '--x', '--no-x'}


@cache
def sentences() -> list[str]:
    """Every text in the source, what is filled in as …"""
    found = []
    for file in (ROOT / 'swiftlite').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.JoinedStr):
                found.append(''.join(str(v.value) if isinstance(v, ast.Constant) else '…' for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize('sentence', ROW.findall(PAGE.read_text(encoding='utf-8')))
def test_sentence_is_in_the_source(sentence):
    parts = [re.escape(part.strip()) for part in sentence.split('…') if part.strip()]
    wanted = re.compile(r'.*'.join(parts), re.S)
    assert max(map(len, parts)) >= 8 and any(wanted.search(text) for text in sentences())


def test_there_are_enough():
    assert len(ROW.findall(PAGE.read_text(encoding='utf-8'))) >= 15


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_flags_in_the_docs_exist(page):
    known = {flag.lstrip('-') for c in COMMANDS.values() for row in flags(c.load()) for flag in row.names}
    known |= {name for table in (MS_SWIFT, MS_SWIFT_LATER) for names in table.values() for name in names}
    known |= {*ENGINE, *SERVER, *(name for table in TABLES.values() for name in table)}
    text = re.sub(r'^```(?!bash|\n).*?^```', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
    named = set(re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', text)) - OTHERS - WRONG
    assert {name for name in named if name[2:].replace('-', '_').removeprefix('no_') not in known} == set()
