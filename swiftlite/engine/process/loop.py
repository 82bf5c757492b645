"""The engine in a process of its own. Started with `python -m swiftlite.engine.process.loop FD`.

Messages are (kind, …) tuples over a pipe. In: add, abort, call, stop. Out: ready, failed, outputs, reply, dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from functools import partial
from typing import Any

from ...errors import SwiftliteError
from ..config import EngineConfig
from ..engine import Engine
from ..environment import SWITCH_INTERVAL
from ..errors import EngineDeadError
from ..outputs import SequenceOutput, pack
from .channel import Channel

READING = 0.02  # seconds of messages between two steps
LEAVING = 10.0  # seconds for the last words to be read
ORPHANED = 5.0  # seconds to end after the front process has


class EngineLoop:
    """Steps while there is work, reads messages between steps."""

    def __init__(self, engine: Engine, conn: Channel):
        self.engine, self.conn = engine, conn
        self.draining = False

    def run(self) -> None:
        """Until the pipe closes, or `stop` came and nothing runs."""
        while True:
            due = max(self.engine.due, time.perf_counter())
            while self._arrived(due):
                if not self.engine.has_work:
                    due = time.perf_counter()  # idle until now: what came together starts together
                if not self._handle(self.conn.recv()):
                    return
                if self.draining and not self.engine.has_work:
                    return
                if time.perf_counter() - due > READING and self.engine.has_work:
                    break  # thousands of new requests do not hold up those that run
            if self.conn.full:  # who reads is stalled: what it has not read stays bounded
                self.conn.wait_room()
                continue
            outputs = self.engine.step()
            if outputs:
                self.conn.send(('outputs', *pack(outputs)))
            if self.draining and not self.engine.has_work:
                return

    def _arrived(self, due: float) -> bool:
        """Wait for a message: until `due`, or as long as it takes where there is nothing else to do."""
        return self.conn.poll(max(due - time.perf_counter(), 0.0) if self.engine.has_work else None)

    def _handle(self, message: tuple[Any, ...]) -> bool:
        kind, *args = message
        if kind == 'add':
            request = args[0]
            try:
                self.engine.add_request(request)
            except SwiftliteError as error:
                refused = SequenceOutput(request.request_id, [], finish_reason='error', error=str(error))
                self.conn.send(('outputs', *pack([refused])))
        elif kind == 'abort':
            self.engine.abort(args[0])
        elif kind == 'call':
            number, name, *rest = args
            try:
                if name == 'add_lora':  # its answer comes when it was read, between two later steps
                    self.engine.load_lora(rest[0], partial(self._answer, number))
                    return True
                self.conn.send(('reply', number, getattr(self.engine, name)(*rest), None))
            except EngineDeadError:
                raise
            except SwiftliteError as error:
                self.conn.send(('reply', number, None, str(error)))
            except Exception as error:  # a call changes nothing before it has succeeded: the others go on
                traceback.print_exc()
                self.conn.send(('reply', number, None, f'{name} failed ({type(error).__name__}: {error}).'))
        elif kind == 'stop':
            self.draining = True
            return bool(args[0])  # False: at once
        return True

    def _answer(self, number: int, error: str | None) -> None:
        self.conn.send(('reply', number, None, error))


def main(conn: Channel) -> int:
    """Load the engine the first message describes, and serve it."""
    try:
        config: EngineConfig = conn.recv()
    except EOFError:
        return 0  # it is not wanted after all
    try:
        engine = Engine(config)
    except SwiftliteError as error:
        with contextlib.suppress(OSError):
            conn.send(('failed', str(error)))
        return 1
    model = engine.model_config
    try:
        conn.send(
            (
                'ready',
                {
                    'max_model_len': model.max_model_len,
                    'max_num_seqs': model.max_num_seqs,
                    'vocab_size': model.vocab_size,
                    'eos_token_ids': model.eos_token_ids,
                    'dtype': str(model.dtype).removeprefix('torch.'),
                    'device': model.device,
                    'path': model.path,
                    'tokenizer': model.tokenizer,
                    'num_blocks': engine.blocks.num_blocks,
                    'block_size': config.block_size,
                },
            )
        )
        EngineLoop(engine, conn).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0  # the front process is gone
    except Exception as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            conn.send(('dead', f'{type(error).__name__}: {error}'))
        return 1
    finally:
        engine.shutdown()
    return 0


def outlive_nobody(channel: Channel) -> None:
    """End this process and its ranks when the front process is gone, even while they load or a step does not end."""
    poller = select.poll()
    poller.register(channel, 0)  # its hang-up alone
    poller.poll()
    time.sleep(ORPHANED)
    os.killpg(0, signal.SIGKILL)


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front process decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    threading.Thread(target=outlive_nobody, args=(channel,), daemon=True).start()
    status = main(channel)
    channel.drain(LEAVING)
    sys.exit(status)
