"""`swiftlite app-ui`: the engine process or the server elsewhere, the page, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING

import psutil
import uvicorn

from swiftlite.serve.sockets import listen
from swiftlite.ui.answers import Answers
from swiftlite.ui.app import create_app
from swiftlite.ui.partner import Partner

if TYPE_CHECKING:
    from swiftlite.args.app_ui import AppUiArgs

LAST_SECONDS = 1  # for what is still sent when the server is stopped; open pages hold their connections for ever


def run(args: AppUiArgs) -> int:
    """Serve the page until SIGINT or SIGTERM. Exit status 0 after an orderly end, 130 when stopped before it was ready.

    Raises SwiftliteError where the port is taken, or the model, an adapter or the server at --base_url is not there.
    """
    return asyncio.run(_serve(args))


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        yield


async def _serve(args: AppUiArgs) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    partner = await _unless(stop, _partner(args))
    if partner is None:
        return 130
    try:
        await _show(args, partner, stop)
    finally:
        await partner.close()
    return 0


async def _partner(args: AppUiArgs) -> Partner:
    if args.base_url is not None:
        from swiftlite.ui.remote import Remote

        return await Remote.connect(args)
    # only here: what talks to a server elsewhere needs no torch
    from swiftlite.infer.setup import prepare
    from swiftlite.ui.local import Local

    setup = prepare(args)
    print(f'Loading {setup.source.name} from {setup.config.model}', file=sys.stderr, flush=True)
    return await Local.start(setup, args)


async def _show(args: AppUiArgs, partner: Partner, stop: asyncio.Event) -> None:
    listener = listen(args.host, args.port)
    app = create_app(partner, Answers(), title=args.studio_title, language=args.studio_lang)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=LAST_SECONDS)
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.02)
    _print_ready(args, partner, listener)
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    logging.getLogger('uvicorn.error').setLevel(logging.CRITICAL)  # that open pages are cut off is no news
    server.should_exit = True
    await serving


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, Partner]) -> Partner | None:
    """The result of `work`, or None once `stop` is set; the work is then cancelled."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not stop.is_set():
        return task.result()
    task.cancel()
    (partner,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(partner, BaseException):  # it was ready at the same moment
        await partner.close()
    return None


def _print_ready(args: AppUiArgs, partner: Partner, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    host = {'0.0.0.0': '127.0.0.1', '::': '[::1]'}.get(args.host, args.host)
    seconds = time.time() - psutil.Process().create_time()
    names = ', '.join(partner.profile.models)
    print(f'Chat with {names} at http://{host}:{port}/ (ready after {seconds:.1f} s, Ctrl-C stops)', flush=True)
