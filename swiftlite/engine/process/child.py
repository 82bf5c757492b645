"""The engine's process, from its start on."""

from __future__ import annotations

import socket
import subprocess
import sys

from .channel import Channel
from .environment import process_environment


class EngineProcess:
    """A process that loads what the first message on its channel describes.

    Its imports take seconds: a command that is going to need it starts it before its own.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'swiftlite.engine.process.loop', str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=process_environment(),
            process_group=0,  # Ctrl-C in a terminal is for the front process
        )
        theirs.close()
        self.channel = Channel(ours)

    def kill(self) -> None:
        """End it now, if it is there still."""
        self.process.kill()
        self.process.wait()
        self.channel.close()
