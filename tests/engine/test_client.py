"""The front process's end of an engine process, against a process that is played by the test."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest

from swiftlite import AsyncEngine, EngineConfig
from swiftlite.engine import EngineDeadError
from swiftlite.engine.outputs import SequenceOutput
from swiftlite.engine.process import async_engine, channel, child, client
from swiftlite.engine.process.channel import Channel
from swiftlite.engine.process.client import EngineClient
from swiftlite.engine.process.loop import EngineLoop

READY = ('max_model_len', 'max_num_seqs', 'vocab_size', 'eos_token_ids', 'dtype', 'device', 'path', 'tokenizer')
INFO = dict.fromkeys((*READY, 'num_blocks', 'block_size'))


class Played:
    """Stands for subprocess.Popen: the other end of the channel is `conn`; it runs until it is killed."""

    pid = 2**30  # that of no process

    def __init__(self, command, pass_fds, **options):
        self.conn = Channel(socket.socket(fileno=os.dup(pass_fds[0])))
        self.returncode = None
        self._gone = threading.Event()

    def wait(self, timeout=None):
        if not self._gone.wait(timeout):
            raise subprocess.TimeoutExpired('played', timeout)
        return self.returncode

    def kill(self):
        self.conn.close()
        self.returncode = -9
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


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_the_next_process_is_started_when_the_last_one_is_gone(monkeypatch, capfd):
    """One that says it is dead and does not end has its device's memory still."""
    started, statuses = [], []

    class Lingers(Played):
        def __init__(self, command, pass_fds, **options):
            super().__init__(command, pass_fds, **options)
            statuses.append([one.returncode for one in started])
            started.append(self)
            self.conn.send(('ready', INFO))

    monkeypatch.setattr(child.subprocess, 'Popen', Lingers)
    monkeypatch.setattr(client, 'LEAVING', 0.1)
    engine = await AsyncEngine.start(EngineConfig(model='/m', skip_tokenizer_init=True))
    started[0].conn.send(('dead', 'CUDA error: out of luck'))
    await until(lambda: len(started) == 2 and engine.alive)
    assert statuses == [[], [-9]]
    assert 'The engine stopped: CUDA error: out of luck Starting it again.' in capfd.readouterr().err
    started[1].kill()
    await engine.shutdown(drain=False)


async def test_a_model_that_cannot_be_loaded_again_is_tried_a_few_times(monkeypatch, capfd):
    """The reason is the one that it gave, not the exit status of its process."""
    started = []

    class Fails(Played):
        def __init__(self, command, pass_fds, **options):
            super().__init__(command, pass_fds, **options)
            started.append(self)
            self.conn.send(('failed', 'No memory is left.') if len(started) > 1 else ('ready', INFO))

    monkeypatch.setattr(child.subprocess, 'Popen', Fails)
    monkeypatch.setattr(client, 'LEAVING', 0.1)
    monkeypatch.setattr(async_engine, 'PAUSE', 0.0)
    engine = await AsyncEngine.start(EngineConfig(model='/m', skip_tokenizer_init=True))
    started[0].kill()
    await until(lambda: engine._restarting is None and len(started) == 4)
    with pytest.raises(EngineDeadError, match=r'^No memory is left\.$'):
        await engine.stats()
    said = capfd.readouterr().err
    assert said.count('No memory is left. Starting it again.') == 2
    assert said.endswith('No memory is left. It died 4 times in 300 s and is not started again.\n')
    await engine.shutdown(drain=False)


async def test_an_engine_comes_back_after_the_system_could_start_none(monkeypatch, capfd):
    started = []

    class Refused(Played):
        def __init__(self, command, pass_fds, **options):
            started.append(self)
            if len(started) in (2, 3):
                raise OSError(errno.EMFILE, 'Too many open files')
            super().__init__(command, pass_fds, **options)
            self.conn.send(('ready', INFO))

    monkeypatch.setattr(child.subprocess, 'Popen', Refused)
    monkeypatch.setattr(async_engine, 'PAUSE', 0.0)
    engine = await AsyncEngine.start(EngineConfig(model='/m', skip_tokenizer_init=True))
    started[0].kill()
    await until(lambda: len(started) == 4 and engine.alive)
    said = 'The engine process could not be started (Too many open files). Starting it again.'
    assert len(started) == 4 and capfd.readouterr().err.count(said) == 2
    started[3].kill()
    await engine.shutdown(drain=False)


class Echo:
    """An engine that answers every request with big outputs; notes whether a step began that nobody has room for."""

    due = 0.0

    def __init__(self, conn, each):
        self.conn, self.each, self.left, self.crowded = conn, each, [], []

    @property
    def has_work(self):
        return bool(self.left)

    def add_request(self, request):
        self.left += [request.request_id] * self.each

    def step(self):
        self.crowded.append(self.conn.full)
        return [SequenceOutput(self.left.pop(0), list(range(20_000)))]


async def test_both_sides_full_is_no_deadlock_and_loses_nothing(played, monkeypatch):
    """More than either side keeps, in both directions at once, while the reader of the outputs is stalled at first."""
    monkeypatch.setattr(channel, 'ROOM', 300_000)
    got, kept = [], []
    engine = connect()
    engine._on_outputs = lambda ids, tokens, rest: got.extend(out.request_id for out in rest)
    conn = engine.process.conn
    assert conn.recv() == EngineConfig(model='/m')
    echo = Echo(conn, each=3)
    thread = threading.Thread(target=EngineLoop(echo, conn).run)
    thread.start()

    async def add(number):
        await engine.room()
        engine.send(('add', SimpleNamespace(request_id=str(number), prompt=b'x' * 100_000)))
        kept.append(engine._channel._kept)

    asyncio.get_running_loop().remove_reader(engine._channel.fileno())  # stalled
    adding = asyncio.gather(*map(add, range(100)))
    await until(lambda: conn.full)
    asyncio.get_running_loop().add_reader(engine._channel.fileno(), engine._read)
    await adding
    await until(lambda: len(got) == 300)
    assert sorted(map(int, got)) == sorted([*range(100)] * 3)
    assert not any(echo.crowded) and max(kept) < 300_000 + 2 * 100_000
    await engine.stop(drain=True, timeout=0.05)
    thread.join()


async def test_who_waits_for_room_learns_that_the_process_is_gone(played, monkeypatch):
    monkeypatch.setattr(channel, 'ROOM', 1000)
    engine = connect()
    engine.send(('add', b'x' * 5_000_000))
    waits = asyncio.create_task(engine.room())
    await asyncio.sleep(0)
    assert not waits.done()
    engine.process.kill()
    await asyncio.wait_for(waits, 60)
