"""The engine's process, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from ..environment import process_environment
from .channel import Channel

GONE = 5.0  # seconds for processes that were killed to be gone
TICK = 0.01


class EngineProcess:
    """A process that loads what the first message on its channel describes.

    Its imports take seconds: a command that is going to need it starts it before its own.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, '-m', 'swiftlite.engine.process.loop', str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env=process_environment(),
                    process_group=0,  # Ctrl-C in a terminal is for the front process
                )
            except BaseException:
                ours.close()
                raise
        self.channel = Channel(ours)

    def reap(self, timeout: float) -> int:
        """Wait until it and all that it started are gone; what runs after `timeout` seconds is killed. Its status."""
        there = self.process.returncode is None  # later its number may be another's
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
        status = self.process.wait()
        if there:
            self._end_group()
        return status

    def kill(self) -> None:
        """End it now, if it is there still."""
        self.reap(0)
        self.channel.close()

    def _end_group(self) -> None:
        """Ranks above 0 are not ours to wait for, and have memory of their devices until they are gone."""
        group, deadline = self.process.pid, time.monotonic() + GONE
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(group, signal.SIGKILL)
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):  # as a container's first process we inherit them
                    os.waitpid(-group, os.WNOHANG)
                os.killpg(group, 0)
                time.sleep(TICK)
