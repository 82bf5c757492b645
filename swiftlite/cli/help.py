"""``--help``: what a command does, an example, and every flag with its default, in groups."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from swiftlite.args.fields import Args
from swiftlite.cli.parse import KINDS, Flag, flags

LEFT = 32  # columns of the flags


def overview(commands: Mapping[str, str], routes: Mapping[str, Sequence[str]]) -> str:
    """The help of ``swiftlite`` itself: its commands, each with one line, and their other names."""
    lines = [
        'swiftlite: fine-tune, merge, run and serve chat models.',
        '',
        'usage: swiftlite COMMAND [--flag value …]',
        '',
    ]
    lines += _row(commands.items(), 16)
    lines += ['', 'also:', *_row(((name, ' '.join(words)) for name, words in routes.items()), 16)]
    lines += [
        '',
        'A first try, without any download:',
        '  swiftlite infer --model_type tiny-chat',
        '',
        "'swiftlite COMMAND --help' explains each. - and _ are the same in flags; lists are separated by spaces;",
        "'--config file.yaml', or a file as the first word, holds flags, one a line as 'name: value'.",
    ]
    return '\n'.join(lines)


def command_help(cls: type[Args], command: str) -> str:
    """The help of one command."""
    table = flags(cls)
    words = ''.join(f' [{flag.name}]' for flag in table if flag.metadata['positional'])
    lines = _wrap(cls.summary, '')
    lines += ['', f'usage: swiftlite {command}{words} [--flag value …] [--config file.yaml]', '']
    lines += ['example:' if len(cls.examples) == 1 else 'examples:', *(f'  {example}' for example in cls.examples)]
    for group in dict.fromkeys(flag.metadata['group'] for flag in table):
        rows = [(_left(flag), _right(flag)) for flag in table if flag.metadata['group'] == group]
        lines += ['', f'{group}:', *_row(rows, LEFT)]
    return '\n'.join(lines)


def _left(flag: Flag) -> str:
    if flag.metadata['positional']:
        return flag.name
    kind = KINDS[flag.kind]
    if flag.metadata['choices'] is not None:
        values = flag.metadata['choices']
        values = list(dict.fromkeys(values.values() if isinstance(values, Mapping) else values))
        kind = '|'.join(values) if len('|'.join(values)) <= 20 else kind
    return f'--{flag.name} {kind}{" …" if flag.is_list else ""}'


def _right(flag: Flag) -> str:
    default = flag.metadata['shown'] or flag.shown_default()
    text = flag.metadata['help'] + (f' [{default}]' if default is not None else '')
    also = [alias if alias.startswith('-') else f'--{alias}' for alias in flag.metadata['aliases']]
    return f'{text} (also {", ".join(also)})' if also else text


def _row(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Two columns; a left part that is too wide gets a line of its own."""
    lines = []
    for left, right in rows:
        text = _wrap(right, ' ' * (width + 2))
        if len(left) < width:
            text[0] = f'  {left:<{width}}{text[0].lstrip()}'
        else:
            text.insert(0, f'  {left}')
        lines += text
    return lines


def _wrap(text: str, indent: str) -> list[str]:
    columns = min(max(shutil.get_terminal_size((110, 24)).columns, 70), 120)
    return textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
