"""The jsonl file of answers: rows {query, response, label, history, system}."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.registry.resolve import ModelSource

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs


def result_folder(args: InferArgs, source: ModelSource) -> Path:
    """--result_dir, else infer_result in the checkpoint, else output/<model>/infer_result."""
    if args.result_dir:
        return Path(args.result_dir)
    return Path(args.ckpt_dir or Path('output', source.name), 'infer_result')


def row(messages: list[dict[str, Any]], response: str, label: str | None, tools: Any = None) -> dict[str, Any]:
    """The row of an answer to `messages`, whose last is the query; earlier turns become history pairs."""
    system = messages[0]['content'] if messages[0]['role'] == 'system' else None
    turns = [message for message in messages if message['role'] != 'system']
    history: list[list[str]] = []
    for message in turns[:-1]:
        if message['role'] == 'assistant' and history:
            history[-1][1] += _text(message)
        else:
            history.append([_text(message), ''])
    found = {'query': _text(turns[-1]), 'response': response, 'label': label, 'history': history, 'system': system}
    return found | ({'tools': tools} if tools else {})


def json_line(value: Mapping[str, Any]) -> str:
    """The line of a jsonl file. Half a surrogate pair, which is no UTF-8, is written as its escape."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    return text + '\n'


class ResultFile:
    """A file in `folder` named by the time, or `path`, to which rows are added; it is created with the first row.

    Both None: nothing is written. `path` is given by the user: UsageError where it is no file.
    """

    def __init__(self, folder: Path | None = None, path: Path | None = None) -> None:
        self._folder = folder
        self._given = path
        self._stream: TextIO | None = None
        self.path: Path | None = None

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def check(self) -> None:
        """UsageError or SwiftliteError if no row could be written; creates nothing."""
        if self._given is not None and self._given.is_dir():
            given = self._given
            raise UsageError(f"--result_path '{given}' is a folder: name a file in it, such as '{given}/results.jsonl'")
        folder = self._given.parent if self._given is not None else self._folder
        if folder is None:
            return
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            why = 'may not be written' if there.is_dir() else 'is a file'
            raise SwiftliteError(f"results cannot be written to '{self._given or folder}': '{there}' {why}")

    def earlier(self) -> list[dict[str, Any]]:
        """The rows that an earlier run left in `path`; half a line at its end, of a run that was killed, is cut off."""
        if self._given is None or not self._given.exists():
            return []
        try:
            content = self._given.read_bytes()
            whole = content[: content.rfind(b'\n') + 1]
            if len(whole) < len(content):
                with self._given.open('r+b') as stream:
                    stream.truncate(len(whole))
            return [json.loads(line) for line in whole.decode('utf-8').split('\n') if line]
        except ValueError:
            raise UsageError(f"--result_path '{self._given}' is no file of results: give another name") from None
        except OSError as error:
            raise SwiftliteError(f"--result_path '{self._given}' cannot be read: {error.strerror}") from None

    def write(self, result: dict[str, Any]) -> None:
        """Append a row, on disk at once."""
        if self._folder is None and self._given is None:
            return
        if self._stream is None:
            self._open()
        assert self._stream is not None
        self._stream.write(json_line(result))
        self._stream.flush()

    def _open(self) -> None:
        stem, folder = time.strftime('%Y%m%d-%H%M%S'), self._folder or Path()
        try:
            if self._given is not None:
                self._given.parent.mkdir(parents=True, exist_ok=True)
                self._stream, self.path = self._given.open('a', encoding='utf-8'), self._given
                return
            folder.mkdir(parents=True, exist_ok=True)
            names = (f'{stem}{suffix}.jsonl' for suffix in ('', *(f'-{n}' for n in range(1, 1000))))
            self.path = next(folder / name for name in names if not (folder / name).exists())
            self._stream = self.path.open('x', encoding='utf-8')
        except OSError as error:
            raise SwiftliteError(f"results cannot be written to '{self._given or folder}': {error.strerror}") from None


def _text(message: dict[str, Any]) -> str:
    content = message.get('content') or ''
    if not isinstance(content, str):
        content = '\n'.join(part['text'] for part in content)
    calls = message.get('tool_calls')
    return content + (json.dumps(calls, ensure_ascii=False) if calls else '')
