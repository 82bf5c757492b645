"""`swiftlite deploy` as a process, for a measurement that brings its own server."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from ..args.bench import BenchArgs
from ..args.groups import EngineArgs
from ..errors import SwiftliteError
from .setting import Setting

STOP_SECONDS = 20


@contextlib.contextmanager
def deployed(args: BenchArgs, what: Setting) -> Iterator[tuple[str, float, float]]:
    """(address of the API, time.perf_counter() of the command, seconds until it answers).

    SwiftliteError where it does not start.
    """
    command = [sys.executable, '-m', 'swiftlite', 'deploy', *_flags(args, what)]
    with tempfile.TemporaryFile('w+') as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        try:
            address = _address(process, said)
            yield address, start, time.perf_counter() - start
        finally:
            _stop(process)


def _flags(args: BenchArgs, what: Setting) -> list[str]:
    flags = ['--host', '127.0.0.1', '--port', '0', '--verbose', 'false', '--log_interval', '0']
    flags += ['--model', what.model, '--dtype', args.dtype, '--seed', str(args.seed)]
    if args.model_revision is not None:
        flags += ['--model_revision', args.model_revision]
    if args.custom_register_path is not None:
        flags += ['--custom_register_path', args.custom_register_path]
    options = what.options
    for f in fields(EngineArgs):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if options[f.name] != default:
            flags += [f'--{f.name}', str(options[f.name])]
    if options['enable_lora']:
        flags += ['--enable_lora', 'true']
    if what.adapters:
        flags += ['--lora_modules', *(f'{name}={path}' for name, path in adapter_names(what).items())]
    return flags


def adapter_names(what: Setting) -> dict[str, str]:
    """Name → folder of the adapters that are served."""
    return {f'adapter-{index}': path for index, path in enumerate(what.adapters)}


def _address(process: subprocess.Popen[str], said: Any) -> str:
    """Wait until the server says where it is."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    while line := lines.get():
        if match := re.search(r' at (https?://\S+) \(ready', line):
            return match[1]
    status = process.wait()
    said.seek(0)
    last = [line.strip() for line in said if line.strip()][-1:]
    reason = last[0].removeprefix('swiftlite: ') if last else f'it ended with status {status}'
    raise SwiftliteError(f'the server that is to be measured did not start: {reason}')


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Hand over each line, then ''; what comes later is read and dropped, so that the server never waits."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put('')
    process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
