"""docs/cli-reference.md and docs/flags.md, written from the dataclasses: ``python -m swiftlite.cli.reference``."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from swiftlite.args.fields import Args
from swiftlite.args.inventory import MS_SWIFT, MS_SWIFT_LATER
from swiftlite.args.refused import known_flags
from swiftlite.cli.main import COMMANDS
from swiftlite.cli.parse import KINDS, Flag, flags
from swiftlite.registry.vllm_flags import ENGINE, SERVER

WRITTEN = 'This page is written by `python -m swiftlite.cli.reference`; a test fails where it is out of date.'
FORMS = """
A flag is `--name value`; `-` and `_` are the same in names. Lists take several values, `--dataset a.jsonl b.jsonl`. A
switch takes `true` or `false`; the name alone is `true`, `--no-name` is `false`. `--config file.yaml` reads flags from
a file, one a line as `name: value`, and environment variables from its block `ENV:`; what is typed wins, and several
files may be given. A value that starts with `--` is written `--name=--value`. [flags.md](flags.md) says what becomes of
each flag of ms-swift and vLLM.
"""
OUTCOMES = """
Every flag is one of these, and none is ignored:

- **honoured**: the flag has the same name and meaning here; **= --x**: another name of `--x`.
- **no effect**: accepted, and a notice says why nothing changes.
- **refused**: exit status 2 and this reason. The values in brackets ask for what happens anyway, and are accepted; so
  are `false`, `0` and `none`.

A flag that is unknown is refused with the nearest one that exists.
"""


def outcome(cls: type[Args], command: str, name: str) -> str:
    """What becomes of another tool's flag; KeyError where neither a field nor a table knows it."""
    for flag in flags(cls):
        if name == flag.name:
            return flag.metadata['help'] if flag.metadata['help'].startswith('refused') else 'honoured'
        if name in (alias.lstrip('-').replace('-', '_') for alias in flag.metadata['aliases']):
            return f'= `--{flag.name}`'
    row = known_flags(command, cls)[name.lower()]
    if row.needless:
        only = f' (only {", ".join(row.values)})' if row.values else ''
        return f'no effect{only}: {row.reason}'
    values = f' [{", ".join(row.values)}]' if row.values else ''
    return f'refused{values}: {row.reason}'


def cli_reference(commands: Mapping[str, type[Args]]) -> str:
    """The page of all commands: summary, examples and every flag."""
    lines = ['# Command line', '', WRITTEN, *FORMS.splitlines(), '']
    lines += [f'- [`swiftlite {name}`](#swiftlite-{name}): {cls.summary}' for name, cls in commands.items()]
    for name, cls in commands.items():
        rows = flags(cls)
        words = ''.join(f' [{flag.name}]' for flag in rows if flag.metadata['positional'])
        lines += ['', f'## swiftlite {name}', '', cls.summary, '', '```', *cls.examples, '```', '']
        lines += [f'`swiftlite {name}{words} [--flag value …] [--config file.yaml]`']
        for group in dict.fromkeys(flag.metadata['group'] for flag in rows):
            lines += ['', f'### {group}', '', '| flag | takes | default | |', '|---|---|---|---|']
            lines += [_row(flag) for flag in rows if flag.metadata['group'] == group]
    return '\n'.join(lines) + '\n'


def flags_page(commands: Mapping[str, type[Args]]) -> str:
    """The page of other tools' flags: what becomes of each."""
    lines = ['# Flags of ms-swift and vLLM', '', WRITTEN, *OUTCOMES.splitlines(), '', '## ms-swift 2.6', '']
    lines += ['Its defaults hold here too, but for those that docs/migrating-from-ms-swift.md names.']
    for tables in (MS_SWIFT, MS_SWIFT_LATER):
        if tables is MS_SWIFT_LATER:
            lines += ['', '## Names of ms-swift 3.x and 4.x', '', 'Beside those above, which mostly live on there.']
        for command, names in tables.items():
            if command in commands:
                lines += ['', f'### {command}', *_outcomes(commands[command], command, names)]
    deploy = commands['deploy']
    lines += [
        '',
        '## vLLM 0.24',
        '',
        '`swiftlite deploy` takes the flags of `vllm serve`, and `LLM(…)` the same options',
    ]
    lines += [
        'of the engine as keyword arguments. Dotted forms such as `--compilation-config.level` count as the name.'
    ]
    own = [name for flag in flags(deploy) for name in flag.names if not name.startswith('-')]
    for title, names in (('Flags that deploy has itself', own), ('Engine', list(ENGINE)), ('Server', list(SERVER))):
        lines += ['', f'### {title}', *_outcomes(deploy, 'deploy', names)]
    return '\n'.join(lines) + '\n'


def pages(commands: Mapping[str, type[Args]]) -> dict[str, str]:
    """File name → text."""
    return {'cli-reference.md': cli_reference(commands), 'flags.md': flags_page(commands)}


def _outcomes(cls: type[Args], command: str, names: Iterable[str]) -> list[str]:
    rows = [f'| `--{name}` | {_cell(outcome(cls, command, name))} |' for name in sorted(set(names), key=str.lower)]
    return ['', '| flag | |', '|---|---|', *rows]


def _row(flag: Flag) -> str:
    name = flag.name if flag.metadata['positional'] else f'--{flag.name}'
    choices = flag.metadata['choices']
    if choices is not None:
        choices = dict.fromkeys(choices.values() if isinstance(choices, Mapping) else choices)
    takes = ' '.join(f'`{choice}`' for choice in choices) if choices else KINDS[flag.kind]
    default = flag.metadata['shown'] or flag.shown_default()
    also = [alias if alias.startswith('-') else f'--{alias}' for alias in flag.metadata['aliases']]
    text = flag.metadata['help'] + (f'; also `{"`, `".join(also)}`' if also else '')
    return f'| `{name}` | {_cell(takes)}{" …" if flag.is_list else ""} | {_cell(default or "")} | {_cell(text)} |'


def _cell(text: str) -> str:
    return text.replace('|', '\\|').replace('<', '&lt;')


def main(*words: str) -> int:
    """Write the pages into the folder in `words` (docs); with ``--check``, 1 if one of them is out of date instead."""
    check = '--check' in words
    folder = Path(next((word for word in words if word != '--check'), 'docs'))
    status = 0
    for name, text in pages({name: command.load() for name, command in COMMANDS.items()}).items():
        file = folder / name
        if not check:
            file.write_text(text, encoding='utf-8')
        elif not file.is_file() or file.read_text(encoding='utf-8') != text:
            print(f'{file} is out of date: run make reference', file=sys.stderr)
            status = 1
    return status


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
