"""An engine on a CPU whose results come late, as a GPU's do."""

import random
import socket
import threading
from collections import deque

from swiftlite.engine.engine import Engine
from swiftlite.engine.process import loop
from swiftlite.engine.process.channel import Channel


def hold_results_back(engine, seed=None):
    """Results are known when they are asked for, and some before, at moments that the seed draws; None: none before."""
    device = Device(engine.executor.submit, random.Random(seed) if seed is not None else None)
    engine.executor.submit = device.submit
    return engine


class Device:
    """Results become known in the order of their steps: none, one or several from one look to the next."""

    def __init__(self, submit, draws):
        self._submit, self._draws = submit, draws
        self._unknown = deque()

    def submit(self, plan):
        self._unknown.append(Late(self, self._submit(plan)))
        return self._unknown[-1]

    def look(self):
        """Time has passed since the last look."""
        if self._draws is not None:
            for _ in range(min(self._draws.choice([0, 0, 0, 1, 1, 2, 3]), len(self._unknown))):
                self._unknown.popleft().known = True

    def wait(self, future):
        while not future.known:
            self._unknown.popleft().known = True


class Late:
    """A step's future."""

    def __init__(self, device, future):
        self._device, self._future = device, future
        self.known = False

    def done(self):
        self._device.look()
        return self.known

    def result(self):
        self._device.wait(self)
        return self._future.result()


class PlayedProcess:
    """An engine process that is a thread of this one, with the same loop and messages.

    For AsyncEngine.start, in the place of an EngineProcess.
    """

    def __init__(self, monkeypatch, seed):
        """seed: for `hold_results_back`."""
        self.engine, self.status = None, None
        monkeypatch.setattr(loop, 'Engine', self._engine)
        ours, theirs = socket.socketpair()
        self.process, self.channel = self, Channel(ours)
        self._seed, self._thread = seed, threading.Thread(target=self._run, args=(Channel(theirs),), daemon=True)
        self._thread.start()

    def reap(self, timeout):
        self._thread.join(timeout)
        return self.status

    def kill(self):
        self.channel.close()

    def _engine(self, config):
        self.engine = hold_results_back(Engine(config), self._seed)
        return self.engine

    def _run(self, conn):
        self.status = loop.main(conn)
        conn.drain(loop.LEAVING)
        conn.close()
