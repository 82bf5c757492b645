"""Messages between the front process and the engine process: pickles over a socket, each with its length before it."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import struct
import time
from collections import deque
from typing import Any

LENGTH = struct.Struct('<Q')
PIECE = 1 << 20  # bytes read at once
TICK = 1e-3  # seconds
ROOM = 32 << 20  # bytes kept for a side that reads late, before the other is to wait for it


class Channel:
    """One end of a pair of connected sockets. `send` never waits: what the other side has not read is kept here.

    Who sends without end minds `full`. Both sides read, whatever they have to send: so both may be full for a while,
    and neither for ever.
    """

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._kept = 0  # bytes in it
        self._in = bytearray()
        self._ended = False

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something is left that the other side had no room for."""
        return bool(self._out)

    @property
    def full(self) -> bool:
        """Whether more than ROOM is left that the other side has not read: what can wait is not to be sent."""
        return self._kept > ROOM

    def send(self, message: Any) -> None:
        """Send a message, or keep it until there is room; OSError if the other side is gone."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._out.append(memoryview(LENGTH.pack(len(data)) + data))
        self._kept += LENGTH.size + len(data)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for."""
        try:
            while self._out:
                first = self._out[0]
                sent = self._sock.send(first, socket.MSG_DONTWAIT)
                self._kept -= sent
                if sent < len(first):
                    self._out[0] = first[sent:]
                    return
                self._out.popleft()
        except BlockingIOError:
            return

    def read(self) -> bool:
        """Take in what has arrived, at most PIECE bytes; False at the end of the other side."""
        try:
            piece = self._sock.recv(PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            piece = b''
        self._in += piece
        self._ended = not piece
        return not self._ended

    @property
    def complete(self) -> bool:
        """Whether a whole message has been read."""
        return len(self._in) >= LENGTH.size and len(self._in) - LENGTH.size >= LENGTH.unpack_from(self._in)[0]

    def poll(self, timeout: float | None) -> bool:
        """Wait until a message is there, or the end: True; False after `timeout` seconds. Sends what was kept."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (self.complete or self._ended):
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not self._wait(left) and left == 0:
                return False
        return True

    def wait_room(self) -> None:
        """Wait while `full`, or until a message is there, or the end."""
        while self.full and not (self.complete or self._ended):
            self._wait(None)

    def recv(self) -> Any:
        """The next message; EOFError at the end of the other side."""
        self.poll(None)
        if not self.complete:
            raise EOFError
        end = LENGTH.size + LENGTH.unpack_from(self._in)[0]
        with memoryview(self._in) as view:
            message = pickle.loads(view[LENGTH.size : end])
        del self._in[:end]
        return message

    def drain(self, timeout: float) -> None:
        """Wait until all is sent or the other side is gone, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._sock, select.POLLOUT)
        with contextlib.suppress(OSError):
            while self._out and (left := deadline - time.monotonic()) > 0:
                poller.poll(left * 1e3)
                self.flush()

    def close(self) -> None:
        self._sock.close()

    def _wait(self, seconds: float | None) -> bool:
        """Read, or send what was kept, as soon as either can be done; False if neither could in that time or less."""
        poller = select.poll()  # unlike select, it takes descriptors above 1,023
        poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
        if seconds is not None and 0 < seconds < 2 * TICK:
            time.sleep(min(seconds, TICK / 10))  # the system's poll counts in whole ticks
            seconds = 0.0
        events = poller.poll(None if seconds is None else int(seconds / TICK))
        if not events:
            return False
        if events[0][1] & select.POLLOUT:
            self.flush()
        if events[0][1] & ~select.POLLOUT:
            self.read()
        return True
