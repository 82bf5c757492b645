"""A tensor-parallel rank above 0 does what rank 0 sends. Started with `python -m swiftlite.engine.runner.worker FD`."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from ...errors import SwiftliteError
from ..environment import SWITCH_INTERVAL
from .executor import RankSetup, join
from .model_runner import ModelRunner


def serve(conn: Connection) -> None:
    """Load, then run commands until the pipe closes."""
    setup: RankSetup = conn.recv()
    try:
        runner = ModelRunner(setup.config, setup.model, join(setup))
    except SwiftliteError as error:
        conn.send(('error', str(error)))
        return
    conn.send(('ok', None))
    while True:
        try:
            command, *args = conn.recv()
        except EOFError:
            return
        if command == 'submit':
            runner.submit(args[0])
        elif command == 'read_adapter':
            assert runner.lora is not None
            uid, path, known = args
            runner.lora.reader.start(uid, path, known, lambda read: conn.send(('adapter', read)))
        elif command == 'forget_adapter':
            assert runner.lora is not None
            runner.lora.forget(*args)
        else:
            try:
                conn.send(('ok', _call(runner, command, args)))
            except SwiftliteError as error:
                conn.send(('error', str(error)))


def _call(runner: ModelRunner, command: str, args: list) -> object:
    if command == 'fit_blocks':
        return runner.fit_blocks()
    assert command == 'allocate_cache'
    runner.allocate_cache(*args)
    return runner.capture()


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is rank 0's business
    sys.setswitchinterval(SWITCH_INTERVAL)
    serve(Connection(int(sys.argv[1])))
