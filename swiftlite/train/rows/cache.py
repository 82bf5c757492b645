"""Encoded data kept in folders by what it was made of: a later run, and the other processes of this one, map it."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swiftlite.train.rows.encode import EncodeReport
from swiftlite.train.rows.encoded import EncodedRows

FORMAT = 1  # of the folders
KEY = re.compile('[0-9a-f]{32}')  # names of entries; what else is there is not ours
ENTRY = 'entry.json'  # written last
IN_USE = 3600  # seconds since its last use in which an entry stays: processes of one run come one after the other
SAMPLES, BLOCK = 64, 1 << 20  # what is looked at of a large file to find damage


@dataclass(frozen=True)
class EncodedData:
    """What a run trains on and what it holds out, before rows are repeated and mixed."""

    training: EncodedRows
    places: np.ndarray  # [rows] int64: which row that was read each of `training` is, counted over all parts; rises
    parts: list[tuple[int, int]]  # for each value of --dataset, how many rows it has, and how many are wanted
    held_out: EncodedRows
    reports: dict[str, EncodeReport]  # by title


def content_key(*made_of: Any) -> str:
    """32 hex digits of everything that the encoded data depends on, given as what JSON takes."""
    text = json.dumps([FORMAT, *made_of], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def cached(folder: Path, make: Callable[[], EncodedData]) -> tuple[EncodedData, bool]:
    """(what `make` returns, whether it was there before): read from `folder`, or made, written there and read.

    Of several processes that come at once, one makes it and the others wait. A folder that is damaged is made anew;
    it appears by one rename, so that half of one is never read.

    Raises:
        OSError: it cannot be written; whatever `make` raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (found := _read(folder)) is not None:
        return found, True
    with _locked(folder.with_name(f'.{folder.name}.lock')):
        if (found := _read(folder)) is not None:
            return found, True
        for left in folder.parent.glob(f'.encoding-{folder.name}-*'):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        made = make()
        work = Path(tempfile.mkdtemp(prefix=f'.encoding-{folder.name}-', dir=folder.parent))
        try:
            _write(made, work)
            work.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                work.rename(folder)
            except OSError:
                if not folder.is_dir():  # not another computer's, on a shared disk without locks
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return _read(folder) or made, False


def prune(place: Path, limit: int) -> list[Path]:
    """Remove the entries of a cache folder that were used longest ago until `limit` bytes are left; returns them.

    What others map stays theirs until they let go; an entry that is being made or was used a moment ago is left. One
    goes by a rename, so that nobody meets half of it.
    """
    entries = []
    for folder in place.iterdir():
        with suppress(OSError):  # another process removes it
            if KEY.fullmatch(folder.name) and (folder / ENTRY).is_file():
                size = sum(file.stat().st_size for file in folder.rglob('*'))
                entries.append((folder.stat().st_mtime, size, folder))
    total, gone = sum(size for _, size, _ in entries), []
    for used, size, folder in sorted(entries):
        if total <= limit or time.time() - used < IN_USE:
            break
        with suppress(OSError), _locked(folder.with_name(f'.{folder.name}.lock'), wait=False):
            if folder.stat().st_mtime == used:
                shutil.rmtree(folder.rename(folder.with_name(f'.encoding-{folder.name}-{os.getpid()}')))
                total -= size
                gone.append(folder)
    for left in place.glob('.encoding-*'):  # of processes that were killed
        with suppress(OSError), _locked(left.with_name(f'.{left.name.split("-")[1]}.lock'), wait=False):
            if time.time() - left.stat().st_mtime > 24 * IN_USE:
                shutil.rmtree(left)
    return gone


@contextmanager
def _locked(file: Path, wait: bool = True) -> Iterator[None]:
    """BlockingIOError where another has it and it is not waited for."""
    with file.open('a') as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # on a file system without locks each process makes it
            pass
        yield


def _write(made: EncodedData, folder: Path) -> None:
    made.training.save(folder / 'training')
    made.held_out.save(folder / 'held-out')
    np.save(folder / 'places.npy', made.places, allow_pickle=False)
    files = sorted(path for path in folder.rglob('*.npy'))
    entry = {
        'format': FORMAT,
        'parts': made.parts,
        'reports': {title: report.record() for title, report in made.reports.items()},
        'files': {str(file.relative_to(folder)): _seen(file) for file in files},
    }
    (folder / ENTRY).write_text(json.dumps(entry, ensure_ascii=False, indent=1), encoding='utf-8')


def _read(folder: Path) -> EncodedData | None:
    """What `_write` wrote; None where it is not there, or not as it was written."""
    try:
        entry: Mapping[str, Any] = json.loads((folder / ENTRY).read_text(encoding='utf-8'))
        if entry['format'] != FORMAT or any(_seen(folder / name) != seen for name, seen in entry['files'].items()):
            return None
        data = EncodedData(
            EncodedRows.load(folder / 'training'),
            np.load(folder / 'places.npy'),
            [(int(rows), int(count)) for rows, count in entry['parts']],
            EncodedRows.load(folder / 'held-out'),
            {title: EncodeReport.of(record) for title, record in entry['reports'].items()},
        )
        os.utime(folder)  # when it was last used
        return data
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _seen(file: Path) -> list[int | str]:
    """Size and checksum of a file; of a large one, of blocks all over it."""
    size = file.stat().st_size
    digest = hashlib.blake2b(digest_size=8)
    with file.open('rb') as stream:
        for start in range(0, size, max(BLOCK, size // SAMPLES)):
            stream.seek(start)
            digest.update(stream.read(BLOCK))
    return [size, digest.hexdigest()]
