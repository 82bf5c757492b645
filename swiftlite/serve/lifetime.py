"""What the commands that serve until they are stopped have in common."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import psutil
import uvicorn

T = TypeVar('T')


class Server(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        yield


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T], close: Callable[[T], Awaitable[None]]) -> T | None:
    """The result of `work`, or None once `stop` is set; the work is then cancelled, and a result closed."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not stop.is_set():
        return task.result()
    task.cancel()
    (made,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(made, BaseException):  # it was ready at the same moment
        await close(made)
    return None


def address(host: str, listener: socket.socket, scheme: str = 'http') -> str:
    """Where a browser or client on this machine reaches the listener."""
    shown = {'0.0.0.0': '127.0.0.1', '::': '[::1]'}.get(host, f'[{host}]' if ':' in host else host)
    return f'{scheme}://{shown}:{listener.getsockname()[1]}'


def seconds_since_start() -> float:
    """Of this process."""
    return time.time() - psutil.Process().create_time()
