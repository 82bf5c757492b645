"""The jsonl file of answers: rows {query, response, label, history, system}."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from swiftlite.errors import SwiftliteError
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


class ResultFile:
    """A file in `folder` named by the time; it is created with the first row. `folder` None writes nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stream: TextIO | None = None
        self.path: Path | None = None

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def write(self, result: dict[str, Any]) -> None:
        """Append a row, on disk at once."""
        if self._folder is None:
            return
        if self._stream is None:
            self._open(self._folder)
        assert self._stream is not None
        self._stream.write(json.dumps(result, ensure_ascii=False) + '\n')
        self._stream.flush()

    def _open(self, folder: Path) -> None:
        stem = time.strftime('%Y%m%d-%H%M%S')
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = (f'{stem}{suffix}.jsonl' for suffix in ('', *(f'-{n}' for n in range(1, 1000))))
            self.path = next(folder / name for name in names if not (folder / name).exists())
            self._stream = self.path.open('x', encoding='utf-8')
        except OSError as error:
            raise SwiftliteError(f"results cannot be written to '{folder}': {error.strerror}") from None


def _text(message: dict[str, Any]) -> str:
    content = message.get('content') or ''
    if not isinstance(content, str):
        content = '\n'.join(part['text'] for part in content)
    calls = message.get('tool_calls')
    return content + (json.dumps(calls, ensure_ascii=False) if calls else '')
