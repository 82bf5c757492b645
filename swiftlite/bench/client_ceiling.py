"""How many tokens a second the load generator itself can read here."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from ..errors import SwiftliteError
from . import sse_server
from .http_stream import EventClient
from .load import run_load

STREAMS, EVENTS, PAUSE = 500, 100, 0.01  # at most 50,000 events a second


async def measure_client(streams: int = STREAMS, events: int = EVENTS, pause: float = PAUSE) -> dict[str, Any]:
    """Read `streams` streams at once from a server in another process that does nothing but write.

    Returns events a second as they came, and what one takes of this process's processor time, in microseconds; the
    inverse of that is the most that it can read. SwiftliteError where the server does not start.
    """
    command = [sys.executable, sse_server.__file__, str(events), str(pause)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise SwiftliteError('the server that the client is measured against did not start')
        client = EventClient(f'http://127.0.0.1:{port}')
        message = client.message('v1/completions', {'stream': True})
        await run_load(client, [message] * streams, [0.0] * streams, timeout=60)  # opens the connections
        used = time.process_time()
        load = await run_load(client, [message] * streams, [0.0] * streams, timeout=60)
        used = time.process_time() - used
        await client.close()
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    read = sum(row.texts for row in load.rows)
    if not read:
        raise SwiftliteError(f'the client could not be measured: {load.rows[0].error if load.rows else "nothing came"}')
    each = used / read
    return {
        'streams': streams,
        'events_per_second': round(read / load.seconds),
        'processor_microseconds_per_event': round(each * 1e6, 1),
        'most_events_per_second': round(1 / each),
    }
