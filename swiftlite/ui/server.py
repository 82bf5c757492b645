"""`swiftlite app-ui`: the engine process or the server elsewhere, the page, and their orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from swiftlite.serve.lifetime import Server, address, seconds_since_start, unless
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
    listen(args.host, args.port).close()  # a busy port is known before a model is loaded
    return asyncio.run(_serve(args))


async def _serve(args: AppUiArgs) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    partner = await unless(stop, _partner(args), _close)
    if partner is None:
        return 130
    try:
        await _show(args, partner, stop)
    finally:
        await _close(partner)
    return 0


async def _close(partner: Partner) -> None:
    await partner.close()


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
    server = Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.02)
    _print_ready(args, partner, listener)
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    logging.getLogger('uvicorn.error').setLevel(logging.CRITICAL)  # that open pages are cut off is no news
    server.should_exit = True
    await serving


def _print_ready(args: AppUiArgs, partner: Partner, listener: socket.socket) -> None:
    names, url = ', '.join(partner.profile.models), address(args.host, listener)
    print(f'Chat with {names} at {url}/ (ready after {seconds_since_start():.1f} s, Ctrl-C stops)', flush=True)
