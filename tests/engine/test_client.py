"""The front process's end of an engine process, against a process that is played by the test."""

import asyncio
import os
import socket
import threading

import pytest

from swiftlite import EngineConfig
from swiftlite.engine import EngineDeadError
from swiftlite.engine.process import child
from swiftlite.engine.process.channel import Channel
from swiftlite.engine.process.client import EngineClient

READY = ('max_model_len', 'max_num_seqs', 'vocab_size', 'eos_token_ids', 'dtype', 'device', 'path', 'tokenizer')
INFO = dict.fromkeys((*READY, 'num_blocks', 'block_size'))


class Played:
    """Stands for subprocess.Popen: the other end of the channel is `conn`; it runs until it is killed."""

    def __init__(self, command, pass_fds, **options):
        self.conn = Channel(socket.socket(fileno=os.dup(pass_fds[0])))
        self._gone = threading.Event()

    def wait(self):
        self._gone.wait()
        return -9

    def kill(self):
        self.conn.close()
        self._gone.set()


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setattr(child.subprocess, 'Popen', Played)


def connect(deaths=None):
    return EngineClient(EngineConfig(model='/m'), lambda *outputs: None, (deaths if deaths is not None else []).append)


async def test_who_waits_for_a_reply_learns_that_the_process_was_killed(played):
    deaths = []
    engine = connect(deaths)
    reply = asyncio.create_task(engine.call('stats'))
    await asyncio.sleep(0)
    await engine.stop(drain=True, timeout=0.05)  # it does not answer, and so is killed
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(reply, 5)
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(engine.call('stats'), 5)
    assert deaths == []  # it was wanted


@pytest.mark.parametrize('message', [('ready', INFO), ('failed', 'no such model')])
async def test_nobody_waits_for_the_model_any_more(played, message):
    """A shutdown while the engine starts: what it says of its model disturbs nothing that comes after."""
    engine = connect()
    waits = asyncio.create_task(engine.ready())
    await asyncio.sleep(0)
    waits.cancel()
    reply = asyncio.create_task(engine.call('stats'))
    await asyncio.sleep(0)
    engine.process.conn.send(message)
    engine.process.conn.send(('reply', 0, {'num_running': 0}, None))
    engine._read()
    assert await asyncio.wait_for(reply, 5) == {'num_running': 0}
    engine.kill()


async def test_a_message_cut_off_by_the_end_is_no_message(played):
    deaths, told = [], []
    engine = connect(deaths)
    engine._on_outputs = lambda *outputs: told.append(outputs)
    engine.process.conn.send(('outputs', ['a'], [1], []))
    engine.process.conn._sock.send(b'\x40' + bytes(7) + b'half a message')
    engine.process.kill()
    with pytest.raises(EngineDeadError, match='ended unexpectedly'):
        await asyncio.wait_for(engine.ready(), 5)
    assert told == [(['a'], [1], [])] and len(deaths) == 1
