"""The loop of the engine process: what it reads between two steps."""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from swiftlite import EngineConfig
from swiftlite.engine.process import loop as process
from swiftlite.engine.process.child import EngineProcess
from swiftlite.engine.process.loop import EngineLoop


class Flood:
    """A pipe on which messages always wait, until the last says stop."""

    full = False

    def __init__(self, count: int) -> None:
        self.left = count

    def poll(self, timeout: float | None) -> bool:
        return True

    def recv(self) -> tuple[object, ...]:
        self.left -= 1
        return ('abort', 'nobody') if self.left else ('stop', False)


class Busy:
    """An engine with work for ever; notes how many messages were left at each step."""

    has_work = True
    due = 0.0

    def __init__(self, conn: Flood) -> None:
        self.conn, self.seen = conn, list[int]()

    def abort(self, request_id: str) -> None:
        pass

    def step(self) -> list[object]:
        self.seen.append(self.conn.left)
        return []


def test_a_flood_of_messages_does_not_stop_the_steps(monkeypatch):
    conn = Flood(10)
    engine = Busy(conn)
    monkeypatch.setattr(process, 'READING', -1.0)
    EngineLoop(engine, conn).run()
    assert engine.seen == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_what_arrives_together_is_read_before_a_step(monkeypatch):
    conn = Flood(10)
    engine = Busy(conn)
    monkeypatch.setattr(process, 'READING', 3600.0)
    EngineLoop(engine, conn).run()
    assert engine.seen == [] and conn.left == 0


def test_a_process_that_is_not_wanted_after_all_ends():
    started = EngineProcess()
    started.channel.close()
    assert started.process.wait(60) == 0


def test_what_the_process_started_ends_with_it(monkeypatch, tmp_path):
    """Ranks of a process that was killed have memory of their devices; nobody else ends them."""
    script, pid = tmp_path / 'engine', tmp_path / 'pid'
    script.write_text(f'#!/bin/sh\nsleep 1000 &\necho $! > {pid}.new; mv {pid}.new {pid}\nexec sleep 1000\n')
    script.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(sys, 'executable', str(script))
        started = EngineProcess()
    while not pid.exists():
        time.sleep(0.01)
    started.process.kill()
    assert started.reap(60) == -9
    with contextlib.suppress(FileNotFoundError):  # or it waits for its new parent, and holds nothing
        assert Path(f'/proc/{pid.read_text().strip()}/stat').read_text().split()[2] == 'Z'
    started.channel.close()


def test_a_process_that_hangs_while_it_loads_does_not_outlive_who_started_it(base, tmp_path):
    os.mkfifo(tmp_path / 'pytorch_model.bin')  # nobody will ever write to it
    shutil.copy(base / 'config.json', tmp_path)
    started = EngineProcess()
    started.channel.send(EngineConfig(str(tmp_path), skip_tokenizer_init=True))
    started.channel.close()
    assert started.process.wait(60) == -9


def test_what_arrives_together_after_a_long_rest_is_read_before_a_step(monkeypatch):
    """The first message gives the engine work; that it came late is no reason to leave the others."""
    now = 0.0

    class Late(Flood):
        def poll(self, timeout: float | None) -> bool:
            nonlocal now
            now += 100.0 if timeout is None else 0.0
            return True

    conn = Late(10)
    engine = Busy(conn)
    monkeypatch.setattr(process.time, 'perf_counter', lambda: now)
    monkeypatch.setattr(Busy, 'has_work', property(lambda self: conn.left < 10))
    EngineLoop(engine, conn).run()
    assert engine.seen == [] and now == 100.0


def test_the_next_step_waits_until_it_is_due_for_what_comes(monkeypatch):
    """A message that comes meanwhile is read before the step, and the step is not late for it."""
    now, waits = 0.0, []

    class Quiet(Flood):
        def poll(self, timeout: float | None) -> bool:
            nonlocal now
            waits.append(timeout)
            if len(waits) == 1:
                now += 1.0  # something comes a second later
                return True
            if len(waits) == 2:
                now += timeout
                return False
            return True

    conn = Quiet(3)
    engine = Busy(conn)
    engine.due = 4.0
    monkeypatch.setattr(process.time, 'perf_counter', lambda: now)
    EngineLoop(engine, conn).run()
    assert waits[:2] == [4.0, 3.0] and engine.seen == [2] and now == 4.0
