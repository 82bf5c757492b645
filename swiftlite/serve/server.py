"""`swiftlite deploy`: the engine process, the web server and their orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from swiftlite.engine.process.async_engine import AsyncEngine
from swiftlite.engine.process.child import EngineProcess
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.infer.setup import Setup, prepare, sampling
from swiftlite.serve.app import create_app
from swiftlite.serve.lifetime import Server, address, seconds_since_start, unless
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.reply import CUT_SECONDS
from swiftlite.serve.service import Limits, Service
from swiftlite.serve.sockets import BACKLOG, allow_connections, listen
from swiftlite.serve.stats_log import log_stats
from swiftlite.template.jinja import check_syntax

if TYPE_CHECKING:
    from swiftlite.args.deploy import DeployArgs


def run(args: DeployArgs, process: EngineProcess | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Exit status 0 after an orderly end, 130 when stopped before it was ready.

    process: the engine's, started before; the caller kills it where this fails.
    """
    allow_connections()
    listen(args.host, args.port).close()  # a busy port is known before a model is loaded
    _check_certificate(args)
    if args.chat_template is not None:
        check_syntax(args.chat_template)
    setup = prepare(args)
    models = served_models(args, setup)
    logging.basicConfig(level=logging.WARNING, format='%(asctime)s %(message)s', datefmt='%H:%M:%S', force=True)
    logging.getLogger('uvicorn.access').setLevel(logging.INFO)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(args, setup, models, process))


async def _serve(args: DeployArgs, setup: Setup, models: ServedModels, process: EngineProcess | None) -> int:
    stop = _stop_event()
    print(f'Loading {setup.source.name} from {setup.config.model}', file=sys.stderr, flush=True)
    service = await unless(stop, _start(args, setup, models, process), _close)
    if service is None:
        return 130
    try:
        await _answer(args, service, stop)
    finally:
        await _close(service)
    return 0


async def _close(service: Service) -> None:
    await service.engine.shutdown(drain=False)


async def _answer(args: DeployArgs, service: Service, stop: asyncio.Event) -> None:
    """Answer requests until `stop`, then finish those that run."""
    listener = listen(args.host, args.port)
    config = uvicorn.Config(
        create_app(service),
        access_log=args.verbose,
        log_config=None,
        lifespan='off',
        backlog=BACKLOG,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    stats = asyncio.create_task(log_stats(service, args.log_interval))
    _print_ready(args, service, listener)
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await _finish(server, serving, service, args.shutdown_timeout)
    stats.cancel()


def served_models(args: DeployArgs, setup: Setup) -> ServedModels:
    """The names of the base model and its adapters. UsageError where an adapter's fits neither them nor the model."""
    source = setup.source
    given = tuple(path for path in (source.model_id_or_path, source.ckpt_dir) if path and path != source.adapter)
    models = ServedModels(
        args.served_model_name or [source.model_type or source.model_id_or_path],
        source.model_id_or_path,
        owned_by=args.owned_by,
        aliases=given,
    )
    bases = args.adapter_bases()
    for name in setup.adapters:
        if name in models.names:
            raise UsageError(f"--lora_modules names '{name}', which is the base model: give the adapter another name")
        if name in bases and not models.is_base(bases[name]):
            raise UsageError(f"--lora_modules puts '{name}' on '{bases[name]}', which is no name of the base model")
    return models


async def _start(args: DeployArgs, setup: Setup, models: ServedModels, process: EngineProcess | None) -> Service:
    engine = await AsyncEngine.start(setup.config, process)
    try:
        models.max_model_len = engine.model_config.max_model_len
        requests = [models.request_for(name, path) for name, path in setup.adapters.items()]
        await asyncio.gather(*map(engine.add_lora, requests))
        for request in requests:
            models.add(request)
        template = None
        try:
            template = setup.template(engine.tokenizer)
        except SwiftliteError as error:
            if args.template_type is not None or args.template_options():
                raise
            print(f'/v1/chat/completions is off: {error}', file=sys.stderr, flush=True)
    except BaseException:
        await engine.shutdown(drain=False)
        raise
    return Service(
        engine,
        models,
        template,
        sampling(args, setup.defaults),
        setup.config.enable_lora,
        Limits(
            args.max_queued_requests,
            args.request_timeout or None,
            int(args.max_body_size * 2**20),
            setup.config.max_logprobs,
        ),
        tuple(args.api_key),
        tuple(args.allowed_origins),
    )


async def _finish(server: uvicorn.Server, serving: asyncio.Task[None], service: Service, timeout: float) -> None:
    """Take no more connections, let what runs finish for `timeout` seconds, then cut it with an error.

    A body that is still on its way when nothing runs any more is not waited for as long.
    """
    for listener in getattr(server, 'servers', []):
        listener.close()  # uvicorn does so a tenth of a second later
    if service.running:
        print(
            f'Finishing {len(service.running)} running requests, at most {timeout:g} s (again: stop at once)',
            flush=True,
        )
    server.should_exit = True
    quiet = asyncio.create_task(_quiet(service, CUT_SECONDS))
    await asyncio.wait({serving, quiet}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    unheard = quiet.done()
    quiet.cancel()
    if not (serving.done() or unheard):
        service.interrupt('The server is shutting down.')
        await asyncio.wait({serving}, timeout=CUT_SECONDS)
    if not serving.done():
        logging.getLogger('uvicorn.error').setLevel(logging.CRITICAL)  # that they are cut off is no news
        server.force_exit = True
    await serving


async def _quiet(service: Service, seconds: float) -> None:
    """Until no request has run for so long."""
    since = time.monotonic()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(seconds / 50)
        if service.running:
            since = time.monotonic()


def _stop_event() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second ends the process at once, and with it the engine's."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            sys.stdout.flush()
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _print_ready(args: DeployArgs, service: Service, listener: socket.socket) -> None:
    url = address(args.host, listener, 'https' if args.ssl_certfile else 'http')
    names = ', '.join(service.models.names)
    print(f'Serving {names} at {url}/v1 (ready after {seconds_since_start():.1f} s, Ctrl-C stops)', flush=True)


def _check_certificate(args: DeployArgs) -> None:
    if args.ssl_certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.ssl_certfile, args.ssl_keyfile)
    except OSError as error:  # ssl.SSLError is one
        files = f'--ssl_certfile {args.ssl_certfile} and --ssl_keyfile {args.ssl_keyfile}'
        raise SwiftliteError(f'{files} cannot be used: {error.strerror or error}.') from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
