"""Errors whose text is meant for the user: one sentence, printed without a traceback."""

import difflib
from collections.abc import Iterable


class SwiftliteError(Exception):
    """Something the user can put right: one sentence naming what was given and what is valid (exit status 1)."""


class UsageError(SwiftliteError):
    """A wrong command line or argument (exit status 2)."""


def nearest(name: str, options: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the option closest to `name`, or ``''`` where none is close."""
    by_key = {_key(option): option for option in options}
    found = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0.6)
    return f"; did you mean '{by_key[found[0]]}'?" if found else ''


def _key(name: str) -> str:
    return name.lower().replace('_', '-')
