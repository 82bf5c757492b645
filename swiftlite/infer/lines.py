"""Lines from the user: edited and recalled in a terminal, taken as they come from a pipe or file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEPT = 1000  # lines that the history file holds


class Lines:
    """Reads lines; in a terminal with editing, Tab for `words`, and Up for earlier lines, also of earlier runs.

    The history file is ``$XDG_STATE_HOME/swiftlite/infer_history`` (``~/.local/state`` by default), readable by its
    owner alone. With `remember` off nothing is read from it or written to it.
    """

    def __init__(self, words: Sequence[str] = (), remember: bool = True) -> None:
        self.terminal = sys.stdin.isatty()
        self._words = words
        self._readline: Any = None
        self._file = history_file() if remember else None
        self._loaded = 0

    def __enter__(self) -> Lines:
        if self.terminal:
            with contextlib.suppress(ImportError):
                import readline

                self._readline = readline
                self._start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._readline is not None and self._file is not None:
            new = self._readline.get_current_history_length() - self._loaded
            with contextlib.suppress(OSError):  # recall is a comfort: a full disk is no reason to fail
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch(0o600)
                self._readline.set_history_length(KEPT)
                self._readline.append_history_file(new, str(self._file))

    def read(self, prompt: str = '') -> str:
        """The next line without its end. EOFError at the end of the input, KeyboardInterrupt on Ctrl-C."""
        return input(prompt if self.terminal else '')

    def _start(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._readline.read_history_file(str(self._file))
        self._loaded = self._readline.get_current_history_length()
        self._readline.set_completer(self._complete)
        self._readline.set_completer_delims('')  # a command is a whole line
        libedit = 'libedit' in (self._readline.__doc__ or '')
        self._readline.parse_and_bind('bind ^I rl_complete' if libedit else 'tab: complete')

    def _complete(self, text: str, state: int) -> str | None:
        found = [word for word in self._words if text and word.startswith(text)]
        return found[state] if state < len(found) else None


def history_file() -> Path:
    """Where the lines of earlier runs are kept."""
    state = os.environ.get('XDG_STATE_HOME')
    return Path(state or Path.home() / '.local' / 'state', 'swiftlite', 'infer_history')
