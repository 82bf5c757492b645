"""The folder of a run: settings, rows as they come, rows in order and the report.

eval_outputs/<name>/vN-YYYYMMDD-HHMMSS/{settings.json, <set>.jsonl, report.json}; <set>.part.jsonl holds what is known
of the rows while the run is not finished: one {"index", …} object a line.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from swiftlite.errors import SwiftliteError
from swiftlite.infer.results import json_line

# what the model said of a row; everything else in a row follows from it and the data
FACTS = ('response', 'finish_reason', 'logprob', 'tokens', 'hits', 'error')
SETTINGS, REPORT, PART = 'settings.json', 'report.json', '.part.jsonl'


class RunFolder:
    """A fresh folder under `parent`, or that of an earlier run with equal `settings`.

    use_cache: True takes up a finished run too, None an unfinished one, False none. A run that another process works on
    is left alone. SwiftliteError where the folder cannot be written.
    """

    def __init__(self, parent: Path, settings: Mapping[str, Any], use_cache: bool | None) -> None:
        self._lock: TextIO | None = None
        text = json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + '\n'
        try:
            parent.mkdir(parents=True, exist_ok=True)
            numbers = {int(m[1]): child for child in parent.iterdir() if (m := re.match(r'v(\d+)-', child.name))}
            for _, folder in sorted(numbers.items(), reverse=True) if use_cache is not False else ():
                finished = (folder / REPORT).exists()
                if _content(folder / SETTINGS) == text and (use_cache or not finished) and self._take(folder):
                    self.path = folder
                    return
            self.path = parent / f'v{max(numbers, default=-1) + 1}-{time.strftime("%Y%m%d-%H%M%S")}'
            self.path.mkdir()
            (self.path / SETTINGS).write_text(text, encoding='utf-8')
            self._take(self.path)
        except OSError as error:
            raise SwiftliteError(f"--eval_output_dir '{parent.parent}' cannot be written: {error.strerror}") from None

    def part(self, name: str) -> PartFile:
        """What is known of the rows of a set."""
        return PartFile(self.path / f'{_file_name(name)}{PART}', self.path / f'{_file_name(name)}.jsonl')

    def report(self, content: Mapping[str, Any]) -> Path:
        """Write report.json, which ends the run."""
        _replace(self.path / REPORT, json.dumps(content, ensure_ascii=False, indent=2) + '\n')
        return self.path / REPORT

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _take(self, folder: Path) -> bool:
        """Hold the folder until `close`; False if another process does."""
        lock = (folder / SETTINGS).open(encoding='utf-8')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True


class PartFile:
    """Facts about rows, each on disk as soon as it is known; later facts about a row are added to earlier ones.

    Those of a set that is finished are read back from its rows.
    """

    def __init__(self, path: Path, final: Path) -> None:
        self._path, self._final = path, final
        self.facts: dict[int, dict[str, Any]] = {}
        self._load()
        self._stream: TextIO | None = None

    def add(self, index: int, facts: Mapping[str, Any]) -> None:
        """Note facts about the row `index`."""
        try:
            if self._stream is None:
                self._stream = self._path.open('a', encoding='utf-8')
            self._stream.write(json_line({'index': index, **facts}))
            self._stream.flush()
        except OSError as error:
            raise SwiftliteError(f"'{self._path}' cannot be written: {error.strerror}") from None
        self.facts.setdefault(index, {}).update(facts)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write the rows in order in place of what was noted."""
        self.close()
        _replace(self._final, ''.join(map(json_line, rows)))
        self._path.unlink(missing_ok=True)
        return self._final

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _load(self) -> None:
        if self._final.exists() and not self._path.exists():
            for line in self._final.read_text(encoding='utf-8').split('\n'):
                row = json.loads(line) if line else {}
                if row:
                    self.facts[row['index']] = {name: row[name] for name in FACTS if row.get(name) is not None}
            return
        content = self._path.read_bytes() if self._path.exists() else b''
        whole = content[: content.rfind(b'\n') + 1]
        if len(whole) < len(content):  # the run was killed in the middle of a line
            with self._path.open('r+b') as stream:
                stream.truncate(len(whole))
        for line in whole.decode('utf-8').split('\n'):
            if line:
                facts = json.loads(line)
                self.facts.setdefault(facts.pop('index'), {}).update(facts)


def _content(path: Path) -> str | None:
    return path.read_text(encoding='utf-8') if path.is_file() else None


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole: a reader sees the old or the new one."""
    try:
        fresh = path.with_name(f'{path.name}.new')
        fresh.write_text(text, encoding='utf-8')
        fresh.replace(path)
    except OSError as error:
        raise SwiftliteError(f"'{path}' cannot be written: {error.strerror}") from None


def _file_name(name: str) -> str:
    return re.sub(r'[^\w.+-]', '-', name)
