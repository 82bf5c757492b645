"""How a field says what its flag is called, what it takes and what it does."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from swiftlite.errors import UsageError, nearest


def arg(
    default: Any = MISSING,
    help: str = '',
    *,
    group: str,
    aliases: Sequence[str] = (),
    choices: Sequence[str] | Mapping[str, str] | None = None,
    low: float | None = None,
    high: float | None = None,
    split: str | None = None,
    positional: bool = False,
    shown: str | None = None,
) -> Any:
    """A dataclass field that is a flag.

    Args:
        aliases: further spellings, of other versions and tools.
        choices: the valid values (any case), or a mapping from each accepted spelling to the value it stands for.
        low, high: inclusive limits of a number.
        split: a list's values may also be separated by this character.
        positional: given without a flag, directly after the command.
        shown: the default as ``--help`` shows it, where the value itself says little.
    """
    metadata = {
        'help': help,
        'group': group,
        'aliases': tuple(aliases),
        'choices': choices,
        'low': low,
        'high': high,
        'split': split,
        'positional': positional,
        'shown': shown,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Base of the command dataclasses: values are checked however they were given, by flag, file or Python."""

    summary: ClassVar[str] = ''
    examples: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None or not f.metadata:
                continue
            if f.metadata['choices'] is not None:
                object.__setattr__(self, f.name, _choose(f.name, value, f.metadata['choices']))
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, (int, float)) and not isinstance(number, bool):
                    _in_range(f.name, number, f.metadata['low'], f.metadata['high'])
        self.check()

    def check(self) -> None:
        """What one field asks of another; raises UsageError."""

    def changed(self, names: Iterable[str]) -> str | None:
        """The first of these fields that is not at its default."""
        defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(self)}
        return next((name for name in names if getattr(self, name) != defaults[name]), None)

    def fill(self, name: str, value: Any) -> None:
        """Give a field its default where that depends on others. For `check` only: the object is frozen after it."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)


def _choose(name: str, value: Any, choices: Sequence[str] | Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_choose(name, each, choices) for each in value]
    for choice in choices:
        if str(value).lower() == choice.lower():
            return choices[choice] if isinstance(choices, Mapping) else choice
    valid = dict.fromkeys(choices.values() if isinstance(choices, Mapping) else choices)
    raise UsageError(f"--{name} takes {', '.join(valid)}, not '{value}'{nearest(str(value), choices)}")


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f'{limit:g}'


def _in_range(name: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high) or not math.isfinite(value):
        limits = [] if math.isfinite(value) else ['a finite number']
        limits += [f'at least {_plain(low)}'] if low is not None else []
        limits += [f'at most {_plain(high)}'] if high is not None else []
        raise UsageError(f'--{name} must be {" and ".join(limits)}, not {value}')
