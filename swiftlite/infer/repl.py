"""Chat in the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from swiftlite.errors import SwiftliteError
from swiftlite.infer.results import ResultFile, row
from swiftlite.infer.session import Session

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs

HELP = """Commands, each on a line of its own:
  clear         forget the conversation
  reset-system  type another system prompt; the conversation begins anew
  multi-line    messages of several lines, each ended by a line that ends with #; single-line switches back
  exit, quit    leave (so does Ctrl-D)
Ctrl-C stops an answer."""
ENDS = ('exit', 'quit')
COMMANDS = (*ENDS, 'clear', 'reset-system', 'multi-line', 'single-line')


class Repl:
    """A conversation with history. Reads lines with `input`, writes answers to stdout as they come."""

    def __init__(self, args: InferArgs, session: Session, results: ResultFile) -> None:
        self._session = session
        self._results = results
        self._stream = args.stream
        self._verbose = bool(args.verbose)
        self._system: str | None = None  # None: the template's default
        self._history: list[dict[str, Any]] = []
        self._multi_line = False

    def run(self) -> None:
        """Until exit, quit or the end of the input."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives `input` line editing and recall
        print(f'Chatting with {self._session.name}.\n{HELP}')
        while True:
            try:
                text = self._read()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print('\n(exit or Ctrl-D leaves)')
                continue
            command = text.strip().lower()
            if command in ENDS:
                return
            if command == 'clear':
                self._history = []
                print('(the conversation is forgotten)')
            elif command == 'reset-system':
                self._reset_system()
            elif command in ('multi-line', 'single-line'):
                self._multi_line = command == 'multi-line'
                print('(end a message with #)' if self._multi_line else '(one line is one message)')
            elif text.strip():
                self._answer(text)

    def _read(self) -> str:
        if not self._multi_line:
            return input('<<< ')
        lines = [input('<<<[M] ')]
        if lines[0].strip().lower() in COMMANDS:
            return lines[0]
        while not lines[-1].endswith('#'):
            lines.append(input())
        return '\n'.join(lines).removesuffix('#')

    def _reset_system(self) -> None:
        """The next line is the system prompt; an empty one brings back the template's."""
        try:
            text = input('<<<[S] ')
        except (EOFError, KeyboardInterrupt):
            print('\n(the system prompt stays)')
            return
        self._system = text or None
        self._history = []
        print('(new system prompt)' if text else "(the template's system prompt)")

    def _answer(self, query: str) -> None:
        """Answer `query`; what was said stays in the history, also when Ctrl-C cut it short."""
        history = [] if self._session.template.spec.single_turn else self._history
        system = [] if self._system is None else [{'role': 'system', 'content': self._system}]
        messages = [*system, *history, {'role': 'user', 'content': query}]
        try:
            prompt = self._session.encode(messages)
        except SwiftliteError as error:
            print(f"({error}: 'clear' begins anew)" if history else f'({error})')
            return
        response, tokens, start = '', 0, time.perf_counter()
        with interruptible() as interrupted:
            for _, delta in self._session.answer([prompt], interrupted):
                response += delta.text
                tokens += len(delta.token_ids)
                if self._stream:
                    print(delta.text, end='', flush=True)
            stopped = interrupted()
        print(' (stopped)' if stopped else '' if self._stream else response)
        if self._verbose:
            seconds = time.perf_counter() - start
            print(f'({len(prompt)} prompt tokens, {tokens} new, {tokens / seconds:.1f} tokens/s)')
        self._history = [*messages[len(system) :], {'role': 'assistant', 'content': response}]
        self._results.write(row(messages, response, None))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a mark in place of an exception, so that it never tears an engine step."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
        sys.stdout.flush()
