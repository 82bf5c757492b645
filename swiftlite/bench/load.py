"""Requests that arrive over time, whether or not earlier ones are done (open loop), and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .http_stream import EventClient, ResponseError


@dataclass
class Row:
    """One request. Times are seconds; those of the start count from the start of the load."""

    index: int
    due: float  # when it was to be sent
    sent: float = math.nan
    prompt_tokens: int | None = None
    output_tokens: int = 0
    texts: int = 0  # events that brought text
    ttft: float | None = None
    gaps: list[float] = field(default_factory=list)  # between events that brought text
    e2e: float | None = None
    error: str | None = None

    @property
    def tpot(self) -> float | None:
        """Mean seconds a token after the first one."""
        if self.e2e is None or self.ttft is None or self.output_tokens < 2:
            return None
        return (self.e2e - self.ttft) / (self.output_tokens - 1)

    def numbers(self) -> dict[str, Any]:
        """For JSON: seconds to the microsecond; None for what is not known."""
        found = {'index': self.index, 'due': self.due, 'sent': self.sent, 'ttft': self.ttft, 'e2e': self.e2e}
        return {
            **{name: None if value is None else round(value, 6) for name, value in found.items()},
            'prompt_tokens': self.prompt_tokens,
            'output_tokens': self.output_tokens,
            'error': self.error,
            'gaps': [round(gap, 6) for gap in self.gaps],
        }


@dataclass
class Load:
    """What a load did. `seconds` run from its start to the end of its last answer."""

    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    most_at_once: int = 0
    stopped: bool = False


def arrivals(count: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds at which `count` requests arrive: gaps are gamma distributed with mean 1/rate; 1 is a Poisson process."""
    if math.isinf(rate):
        return [0.0] * count
    rng = random.Random(seed)
    found, now = [], 0.0
    for _ in range(count):
        now += rng.gammavariate(burstiness, 1 / (rate * burstiness))
        found.append(now)
    return [moment - found[0] for moment in found]


async def run_load(
    client: EventClient,
    messages: Sequence[bytes],
    moments: Sequence[float],
    *,
    timeout: float,
    max_concurrency: int | None = None,
    stop: asyncio.Event | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Load:
    """Send each message at its moment (seconds from now). `stop` breaks off what is not done: those have no row."""
    load = Load()
    room = asyncio.Semaphore(max_concurrency) if max_concurrency else contextlib.nullcontext()
    stop = stop or asyncio.Event()
    stopping = asyncio.create_task(stop.wait())
    start = time.perf_counter()
    running = 0

    async def one(index: int) -> None:
        nonlocal running
        row = Row(index, moments[index])
        async with room:
            running += 1
            load.most_at_once = max(load.most_at_once, running)
            try:
                await _send(client, messages[index], row, start, timeout)
            finally:
                running -= 1
        load.rows.append(row)
        if on_row is not None:
            on_row(row)

    tasks = []
    for index, moment in enumerate(moments):
        while (pause := start + moment - time.perf_counter()) > 0 and not stop.is_set():  # loops wake up early
            await asyncio.wait({stopping}, timeout=pause)
        if stop.is_set():
            break
        tasks.append(asyncio.create_task(one(index)))
    if tasks and not stop.is_set():
        whole = asyncio.gather(*tasks)
        pending: set[asyncio.Future[Any]] = {whole, stopping}
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            whole.result()
    load.seconds = time.perf_counter() - start
    load.stopped = stop.is_set()
    for task in (*tasks, stopping):
        task.cancel()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    load.rows.sort(key=lambda row: row.index)
    return load


async def _send(client: EventClient, message: bytes, row: Row, start: float, timeout: float) -> None:
    """Send one request and fill in its row."""
    sent = last = time.perf_counter()
    row.sent = sent - start
    usage: dict[str, Any] = {}

    def on_event(data: bytes, now: float) -> None:
        nonlocal last, usage
        event = json.loads(data)
        if event.get('usage'):
            usage = event['usage']
        if event.get('error'):
            raise_later.append(_said(event['error']))
            return
        for choice in event.get('choices') or ():
            if not (choice.get('text') or _content(choice.get('delta'))):
                continue
            row.texts += 1
            if row.ttft is None:
                row.ttft = now - sent
            else:
                row.gaps.append(now - last)
            last = now

    raise_later: list[str] = []
    try:
        end = await client.post(message, on_event, timeout)
        if raise_later:
            raise ResponseError(raise_later[0])
        row.output_tokens = usage.get('completion_tokens', row.texts)
        row.prompt_tokens = usage.get('prompt_tokens')
        if row.ttft is None:
            raise ResponseError('the answer has no text')
        row.e2e = end - sent
    except ResponseError as error:
        row.error = raise_later[0] if raise_later else str(error)


def _content(delta: dict[str, Any] | None) -> Any:
    return delta and (delta.get('content') or delta.get('reasoning_content') or delta.get('tool_calls'))


def _said(error: Any) -> str:
    return str(error.get('message') or error) if isinstance(error, dict) else str(error)
