"""Flags of other tools that are no fields here: refused with the reason, or needless and named in a notice."""

from collections.abc import Mapping
from dataclasses import dataclass

# values of any refused flag that ask for nothing
ALWAYS_OFF = ('false', '0', 'none', 'null', '', '[]', '{}')


@dataclass(frozen=True)
class Known:
    """What becomes of a flag that is no field.

    `values`: of a refused flag, those that ask for what happens anyway and are accepted; of a needless one, the only
    valid ones, or none where any value is.
    """

    reason: str
    needless: bool = False
    values: tuple[str, ...] = ()

    def accepts(self, value: str | None) -> bool:
        """Whether this value may stand; None for a flag without a value."""
        if self.needless:
            return not self.values or (value is not None and value.lower() in self.values)
        return value is not None and value.lower() in (*ALWAYS_OFF, *self.values)


def refused(reason: str, flags: str) -> dict[str, Known]:
    """Rows for the words of `flags`: ``name``, or ``name=value|value`` with the values that change nothing."""
    return {name: Known(reason, False, values) for name, values in _rows(flags)}


def needless(reason: str, flags: str) -> dict[str, Known]:
    """As `refused`, accepted with a notice; ``name=value|value`` takes these values only."""
    return {name: Known(reason, True, values) for name, values in _rows(flags)}


def table(*parts: Mapping[str, Known]) -> dict[str, Known]:
    """The parts as one table; a later row replaces an earlier one."""
    return {name: row for part in parts for name, row in part.items()}


def _rows(flags: str) -> list[tuple[str, tuple[str, ...]]]:
    pairs = [word.partition('=') for word in flags.split()]
    return [(name, tuple(text.lower() for text in values.split('|')) if mark else ()) for name, mark, values in pairs]
