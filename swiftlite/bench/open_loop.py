"""Requests that arrive at an engine over time, whether or not earlier ones are answered: its own step loop."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ..engine.engine import Engine
from ..engine.request import EngineRequest
from ..errors import SwiftliteError
from .load import Load, Row


def open_loop(engine: Engine, requests: Sequence[EngineRequest], moments: Sequence[float], said: str) -> Load:
    """Add each request at its moment (seconds from now, in order) and step until all are answered.

    Times of a request count from when it was due: one that comes during a step waits for its end.
    """
    load = Load([Row(index, moment) for index, moment in enumerate(moments)])
    rows = {request.request_id: row for request, row in zip(requests, load.rows, strict=True)}
    last: dict[str, float] = {}
    added = running = 0
    start = time.perf_counter()
    bar = tqdm(total=len(requests), desc=said, unit='req', disable=None, leave=False)
    try:
        while added < len(requests) or running:
            now = time.perf_counter() - start
            while added < len(requests) and moments[added] <= now:
                engine.add_request(requests[added])
                load.rows[added].sent = time.perf_counter() - start
                added, running = added + 1, running + 1
            load.most_at_once = max(load.most_at_once, running)
            if not running:
                time.sleep(moments[added] - now)
                continue
            outputs = engine.step()
            now = time.perf_counter() - start
            for out in outputs:
                row = rows[out.request_id]
                if out.error is not None:
                    raise SwiftliteError(out.error)
                if out.token_ids:
                    if row.ttft is None:
                        row.ttft = now - row.due
                    else:
                        row.gaps.append(now - last[out.request_id])
                    last[out.request_id] = now
                    row.output_tokens += len(out.token_ids)
                if out.finish_reason is not None:
                    row.e2e = now - row.due
                    running -= 1
                    bar.update()
    finally:  # an error or Ctrl-C leaves nothing behind
        bar.close()
        for request in requests[:added]:
            engine.abort(request.request_id)
    load.seconds = time.perf_counter() - start
    return load
