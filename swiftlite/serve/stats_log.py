"""A line of statistics in the log every few seconds, while there is something to say."""

from __future__ import annotations

import asyncio
import logging
import time

from swiftlite.engine.errors import EngineDeadError
from swiftlite.serve.service import Service

logger = logging.getLogger('swiftlite.serve')


async def log_stats(service: Service, interval: float) -> None:
    """Log running and waiting requests, tokens a second and the use of the cache; 0 logs nothing."""
    last, then = 0, time.monotonic()
    while interval:
        await asyncio.sleep(interval)
        try:
            stats = await service.engine.stats()
        except EngineDeadError:
            last = 0
            continue
        now, made = time.monotonic(), max(0, stats['generated_tokens'] - last)
        if made or stats['num_running'] or stats['num_waiting']:
            logger.info(
                '%d running, %d waiting, %.1f tokens/s, KV cache %.0f %% used, prefix cache %.0f %% hits',
                stats['num_running'],
                stats['num_waiting'],
                made / (now - then),
                100 * stats['blocks_used'] / max(1, stats['blocks_total']),
                100 * stats['prefix_hits'] / max(1, stats['prefix_queries']),
            )
        last, then = stats['generated_tokens'], now
