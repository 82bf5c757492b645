"""What `deploy` and `app-ui` share: the address they print, and the end that comes while they start."""

import asyncio
import resource
import socket

import pytest

from swiftlite.serve.lifetime import address, unless
from swiftlite.serve.sockets import CONNECTIONS, allow_connections


@pytest.mark.parametrize(
    ('host', 'shown'),
    [('127.0.0.1', '127.0.0.1'), ('0.0.0.0', '127.0.0.1'), ('::', '[::1]'), ('::1', '[::1]'), ('example', 'example')],
)
def test_the_address_can_be_clicked(host: str, shown: str) -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        assert address(host, listener, 'https') == f'https://{shown}:{listener.getsockname()[1]}'


def test_as_many_connections_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (max(wanted, 256), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_was_ready_as_it_was_stopped_is_closed() -> None:
    closed = []

    async def close(made: str) -> None:
        closed.append(made)

    async def work(stop: asyncio.Event | None) -> str:
        if stop is not None:
            stop.set()
        return 'made'

    async def slow() -> str:
        await asyncio.sleep(3600)
        return 'never'

    async def scenario() -> list[str | None]:
        never, at_once, before = asyncio.Event(), asyncio.Event(), asyncio.Event()
        before.set()
        return [
            await unless(never, work(None), close),
            await unless(at_once, work(at_once), close),
            await unless(before, slow(), close),
        ]

    assert asyncio.run(scenario()) == ['made', None, None] and closed == ['made']
    with pytest.raises(ValueError, match='no'):
        asyncio.run(_failing(close))


async def _failing(close: object) -> None:
    async def fails() -> str:
        raise ValueError('no')

    await unless(asyncio.Event(), fails(), close)  # type: ignore[arg-type]
