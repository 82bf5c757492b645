"""The folder of a run: output/<model>/vN-YYYYMMDD-HHMMSS/ and what is written beside the weights."""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftlite import __version__
from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint.adapter import adapter_config
from swiftlite.errors import SwiftliteError, UsageError

ARGS_FILE = 'sft_args.json'
TRAINING_FILE = 'training_args.json'
LOG_FILE = 'logging.jsonl'
STATE_FILE = 'trainer_state.json'  # what the Trainer writes last into a checkpoint
PART = '.part'  # behind the name of a checkpoint that is being written


def run_folder(output_dir: str, name: str, versioned: bool) -> Path:
    """Create and return the folder of a run: <output_dir>/<name>/vN-<time>, N counting up; not `versioned`: output_dir.

    Raises:
        UsageError: not `versioned`, and the folder holds another run.
        SwiftliteError: it cannot be written.
    """
    parent = Path(output_dir).expanduser() / name if versioned else Path(output_dir).expanduser()
    if not versioned and (parent / LOG_FILE).exists():
        raise UsageError(f"--output_dir '{output_dir}' holds another run: give a new folder, or leave the suffix on")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while versioned:
            numbers = [int(m.group(1)) for child in parent.iterdir() if (m := re.match(r'v(\d+)-', child.name))]
            folder = parent / f'v{max(numbers, default=-1) + 1}-{time.strftime("%Y%m%d-%H%M%S")}'
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise SwiftliteError(f"--output_dir '{output_dir}' cannot be written: {error.strerror}") from error
    return parent


def check_output(output_dir: str, versioned: bool) -> None:
    """What `run_folder` would refuse, before anything is computed; leaves nothing behind."""
    if not output_dir.strip():
        raise UsageError('--output_dir is empty: name a folder')
    parent = Path(output_dir).expanduser()
    if not versioned and (parent / LOG_FILE).exists():
        raise UsageError(f"--output_dir '{output_dir}' holds another run: give a new folder, or leave the suffix on")
    there = next(path for path in (parent.absolute(), *parent.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = 'may not be written' if there.is_dir() else 'is a file'
        raise SwiftliteError(f"--output_dir '{output_dir}' cannot be written: '{there}' {why}")
    try:
        Path(tempfile.mkdtemp(prefix='.swiftlite-', dir=there)).rmdir()
    except OSError as error:
        raise SwiftliteError(f"--output_dir '{output_dir}' cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while this one writes into it; a process that dies gives it back.

    Raises:
        UsageError: another run has it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"another run writes into '{folder}': wait for its end, or give another folder"
                raise UsageError(text) from error
        yield
    finally:
        os.close(handle)


def args_record(args: SftArgs, resolved: dict[str, Any]) -> dict[str, Any]:
    """What sft_args.json holds: every field of the arguments, with what AUTO values came out as."""
    return {'swiftlite_version': __version__, **dataclasses.asdict(args), **resolved}


def write_training_args(folder: Path, arguments: Any) -> None:
    """transformers' TrainingArguments of the run, beside the flags that they were made of."""
    (folder / TRAINING_FILE).write_text(arguments.to_json_string() + '\n', encoding='utf-8')


def write_args(folder: Path, record: dict[str, Any]) -> None:
    (folder / ARGS_FILE).write_text(json.dumps(record, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')


def next_commands(checkpoint: str, lora: bool) -> list[str]:
    """The command lines printed at the end of a run; an adapter that cannot run beside its base is merged first."""
    merge = f'swiftlite export --ckpt_dir {shlex.quote(checkpoint)} --merge_lora true'
    beside = not lora or runs_beside(checkpoint)
    shown = shlex.quote(checkpoint if beside else f'{checkpoint}-merged')
    infer, deploy = f'swiftlite infer --ckpt_dir {shown}', f'swiftlite deploy --ckpt_dir {shown}'
    return [infer, *([merge] if lora else []), deploy] if beside else [merge, infer, deploy]


def runs_beside(checkpoint: str) -> bool:
    """Whether the adapter in a folder can be served without being merged."""
    try:
        adapter_config(checkpoint)
    except SwiftliteError:
        return False
    return True


def how_to_go_on(folder: Path, step: int) -> str:
    """What is printed when a run is stopped by Ctrl-C at a step."""
    numbers = [int(file.parent.name.rpartition('-')[2]) for file in folder.glob(f'checkpoint-*[0-9]/{STATE_FILE}')]
    if not numbers:
        return f'stopped at step {step}, before the first checkpoint (--save_steps)'
    last = shlex.quote(str(folder / f'checkpoint-{max(numbers)}'))
    return f'stopped at step {step}; the same command goes on with --resume_from_checkpoint {last}'
