"""Chat in the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from swiftlite.engine.errors import RequestError
from swiftlite.errors import SwiftliteError
from swiftlite.infer.lines import Lines
from swiftlite.infer.results import ResultFile, row
from swiftlite.infer.session import Session

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs

HELP = """Commands, each on a line of its own:
  clear         forget the conversation
  reset-system  type another system prompt; the conversation begins anew
  multi-line    messages of several lines, each ended by a line that ends with #; single-line switches back
  exit, quit    leave (so does Ctrl-D)"""
SWITCH_HELP = '  switch-lora   answer with another adapter, or with the base model; the conversation goes on'
KEYS = 'Ctrl-C stops an answer.'
MANY = 3  # presses of Ctrl-C after which a step that does not end is given up
ENDS = ('exit', 'quit')
COMMANDS = (*ENDS, 'clear', 'reset-system', 'multi-line', 'single-line', 'switch-lora')


class Repl:
    """A conversation with history. Answers go to stdout as they come.

    Where the input is no terminal, but a pipe or a file, stdout holds the answers and nothing else.
    """

    def __init__(self, args: InferArgs, session: Session, results: ResultFile) -> None:
        self._session = session
        self._results = results
        self._stream = args.stream
        self._verbose = bool(args.verbose)
        self._system: str | None = None  # None: the template's default
        self._history: list[dict[str, Any]] = []
        self._multi_line = False
        self._failed = 0
        self._lines = Lines(COMMANDS, remember=args.save_result)

    def run(self) -> int:
        """Until exit, quit or the end of the input. Returns how many messages could not be answered."""
        with self._lines:
            several = [SWITCH_HELP] if len(self._session.loras) > 1 else []
            self._note('\n'.join([f'Chatting with {self._session.partner}.', HELP, *several, KEYS]))
            while True:
                try:
                    text = self._read()
                except EOFError:
                    self._note('')
                    return self._failed
                except UnicodeDecodeError as error:
                    self._fail(f'(the input is not UTF-8 text: {error.reason})')
                    if self._lines.terminal:
                        continue
                    return self._failed
                except KeyboardInterrupt:
                    if not self._lines.terminal:
                        raise
                    print('\n(exit or Ctrl-D leaves)')
                    continue
                command = text.strip().lower()
                if command in ENDS:
                    return self._failed
                if command in COMMANDS:
                    self._obey(command)
                elif text.strip():
                    self._answer(text)

    def _obey(self, command: str) -> None:
        if command == 'clear':
            self._history = []
            self._note('(the conversation is forgotten)')
        elif command == 'reset-system':
            self._reset_system()
        elif command == 'switch-lora':
            self._switch_lora()
        else:
            self._multi_line = command == 'multi-line'
            self._note('(end a message with #)' if self._multi_line else '(one line is one message)')

    def _note(self, text: str) -> None:
        """What is no answer: for people at a terminal."""
        if self._lines.terminal:
            print(text)

    def _read(self) -> str:
        if not self._multi_line:
            return self._lines.read('<<< ')
        lines = [self._lines.read('<<<[M] ')]
        if lines[0].strip().lower() in COMMANDS:
            return lines[0]
        with contextlib.suppress(EOFError):  # a last message may lack its mark
            while not lines[-1].endswith('#'):
                lines.append(self._lines.read())
        return '\n'.join(lines).removesuffix('#')

    def _reset_system(self) -> None:
        """The next line is the system prompt; an empty one brings back the template's."""
        try:
            text = self._lines.read('<<<[S] ')
        except (EOFError, KeyboardInterrupt):
            self._note('\n(the system prompt stays)')
            return
        self._system = text or None
        self._history = []
        self._note('(new system prompt)' if text else "(the template's system prompt)")

    def _switch_lora(self) -> None:
        """The next line names an adapter; an empty one means the base model."""
        try:
            name = self._lines.read(f'<<<[{" ".join(self._session.loras)}, or nothing for the base model] ').strip()
            self._session.use(name or None)
        except (EOFError, KeyboardInterrupt):
            self._note('\n(the adapter stays)')
        except SwiftliteError as error:
            self._fail(f'({error})')
        else:
            self._note(f'(answers come from {self._session.partner})')

    def _fail(self, text: str) -> None:
        self._failed += 1
        print(text, file=sys.stdout if self._lines.terminal else sys.stderr)

    def _answer(self, query: str) -> None:
        """Answer `query`; what was said stays in the history, also when Ctrl-C cut it short."""
        history = [] if self._session.template.spec.single_turn else self._history
        system = [] if self._system is None else [{'role': 'system', 'content': self._system}]
        messages = [*system, *history, {'role': 'user', 'content': query}]
        try:
            prompt = self._session.encode(messages)
        except SwiftliteError as error:
            self._fail(f"({error}: 'clear' begins anew)" if history else f'({error})')
            return
        response, tokens, start = '', 0, time.perf_counter()
        try:
            with interruptible() as interrupted:
                for _, delta in self._session.answer([prompt], interrupted):
                    response += delta.text
                    tokens += len(delta.token_ids)
                    if self._stream and delta.text:
                        print(delta.text, end='', flush=True)
                stopped = interrupted()
        except RequestError as error:
            self._fail(f'({error})')
            return
        if stopped and not self._lines.terminal:
            raise KeyboardInterrupt
        print(' (stopped)' if stopped else '' if self._stream else response)
        if self._verbose:
            seconds = time.perf_counter() - start
            self._note(f'({len(prompt)} prompt tokens, {tokens} new, {tokens / seconds:.1f} tokens/s)')
        self._history = [*messages[len(system) :], {'role': 'assistant', 'content': response}]
        self._results.write(row(messages, response, None))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a mark in place of an exception, so that it never tears an engine step; the fourth one does."""
    seen: list[int] = []

    def mark(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) > MANY:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, mark)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
        sys.stdout.flush()
