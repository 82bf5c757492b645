"""`swiftlite bench serve`: requests that arrive at a server over time, and what their users see."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ..args.bench import BenchArgs
from ..errors import SwiftliteError
from .facts import facts
from .http_stream import EventClient
from .load import Load, Row, arrivals, run_load
from .remote import api_root, headers, messages, model_name
from .report import Lines, show_spreads, spread
from .workload import VOCAB, Request, build, other_ids, warm_up

LATE_MS = 20
TITLES = {
    'ttft_ms': 'time to first token',
    'itl_ms': 'between tokens',
    'tpot_ms': 'per token after the first',
    'e2e_ms': 'whole request',
}


@dataclass(frozen=True)
class Target:
    """A server, and the work for it.

    Where it was started for this: `started` is that moment (time.perf_counter()), `ready` the seconds to its answer.
    """

    url: str
    model: str
    adapters: list[str]
    work: dict[str, list[Request]]
    vocab_size: int
    started: float | None = None
    ready: float | None = None


def run(args: BenchArgs) -> int:
    """Measure, print tables and JSON lines; returns the exit status: 1 if every request failed, 130 after Ctrl-C."""
    if args.plot is not None:
        from .plot import check

        check()
    _allow_connections()
    with _target(args) as target, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_measure(args, target, Lines(args.output)))


@contextlib.contextmanager
def _target(args: BenchArgs) -> Iterator[Target]:
    """The server at --base_url, or one that runs as long as it is measured."""
    if args.base_url is not None:
        root = api_root(args.base_url)
        model = model_name(args, root, args.model_type or args.model_id_or_path)
        vocab = args.vocab_size or VOCAB
        work = {name: build(args, name, vocab) for name in dict.fromkeys(args.workload)}
        yield Target(root, model, [], work, vocab)
        return
    from .deployed import adapter_names, deployed
    from .setting import setting, workloads

    with setting(args, tokenizer=True) as what:
        work = workloads(args, what.config)
        vocab = args.vocab_size or what.config.vocab_size
        if args.vocab_size is not None:
            work = {name: build(args, name, vocab) for name in work}
        names = list(adapter_names(what))
        print(f'Starting a server for {what.name}', flush=True)
        with deployed(args, what) as (url, started, ready):
            print(f'it answers at {url} after {ready:.1f} s', flush=True)
            yield Target(url, model_name(args, url, None), names, work, vocab, started, ready)


async def _measure(args: BenchArgs, target: Target, lines: Lines) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    client = EventClient(target.url, headers(args))
    try:
        found = await _loads(args, client, target, lines, stop)
    finally:
        await client.close()
    if args.plot is not None and found:
        from .plot import write

        write(args.plot, found)
        print(f'the distributions are in {args.plot}')
    if stop.is_set():
        said = 'this is what was measured so far' if found else 'nothing was measured yet'
        print(f'stopped: {said}', file=sys.stderr)
        return 130
    return 0 if any(row.error is None for load in found.values() for row in load.rows) else 1


async def _loads(
    args: BenchArgs, client: EventClient, target: Target, lines: Lines, stop: asyncio.Event
) -> dict[str, Load]:
    """Each load of the server by its name, printed as soon as it is done."""
    found: dict[str, Load] = {}
    more = await _first_token(args, client, target) | await _client(args)
    shared = facts()
    for name, requests in target.work.items():
        await _warm_up(args, client, target, requests, stop)
        for number in range(args.repeats):
            if stop.is_set():
                break
            same = requests if number == 0 else other_ids(requests, number + 1, target.vocab_size)
            sent = messages(args, client, target.model, same, target.adapters)
            load = await _one(args, client, name, sent, stop)
            if not load.rows:
                continue
            found[name if args.repeats == 1 else f'{name} {number + 1}'] = load
            result = _result(args, target, name, load) | more
            _print(result)
            lines.add(result | shared, [row.numbers() for row in load.rows])
    return found


async def _first_token(args: BenchArgs, client: EventClient, target: Target) -> dict[str, Any]:
    """Seconds from the start of the server to its first token, where it was started for this."""
    if target.started is None:
        return {}
    first = [replace(r, output_len=1) for r in warm_up(next(iter(target.work.values())), 1, target.vocab_size)]
    now = time.perf_counter() - target.started
    load = await run_load(
        client, messages(args, client, target.model, first, target.adapters), [0.0], timeout=args.timeout
    )
    row = load.rows[0]
    if row.error is not None:
        raise SwiftliteError(f'the server at {target.url} does not answer: {row.error}')
    seconds = now + row.sent + (row.ttft or 0.0)
    print(f'its first token came {seconds:.1f} s after its start', flush=True)
    return {'ready_seconds': round(target.ready or 0.0, 2), 'first_token_seconds': round(seconds, 2)}


async def _client(args: BenchArgs) -> dict[str, Any]:
    """What the client itself can read, where that is asked for."""
    if not args.client_ceiling:
        return {}
    from .client_ceiling import measure_client

    found = await measure_client()
    print(
        f'this client reads at most {found["most_events_per_second"]:,} tokens/s '
        f'({found["processor_microseconds_per_event"]} µs of a processor for each; {found["streams"]} streams)',
        flush=True,
    )
    return {'client': found}


async def _warm_up(
    args: BenchArgs, client: EventClient, target: Target, requests: list[Request], stop: asyncio.Event
) -> None:
    """Requests that are not measured. SwiftliteError where all of them fail: the others would, too."""
    first = warm_up(requests, args.num_warmups, target.vocab_size)
    if not first or stop.is_set():
        return
    sent = messages(args, client, target.model, first, target.adapters)
    load = await run_load(client, sent, [0.0] * len(sent), timeout=args.timeout, stop=stop)
    if load.rows and all(row.error for row in load.rows):
        error = str(load.rows[0].error)
        ids = args.base_url is not None and args.vocab_size is None and ('token' in error or 'vocab' in error)
        hint = '; --vocab_size limits the token ids of the prompts' if ids else ''
        raise SwiftliteError(f'the server at {target.url} answers no request: {error.rstrip(".")}{hint}')


async def _one(args: BenchArgs, client: EventClient, name: str, sent: list[bytes], stop: asyncio.Event) -> Load:
    moments = arrivals(len(sent), args.rate(), args.burstiness, args.seed)
    bar = tqdm(total=len(sent), desc=name, unit='req', dynamic_ncols=True, disable=None, leave=False)

    def on_row(row: Row) -> None:
        bar.update()

    gc.collect()
    gc.freeze()  # what is here now is not looked through again while times are taken
    try:
        return await run_load(
            client,
            sent,
            moments,
            timeout=args.timeout,
            max_concurrency=args.max_concurrency,
            stop=stop,
            on_row=on_row,
        )
    finally:
        gc.unfreeze()
        bar.close()


def _result(args: BenchArgs, target: Target, name: str, load: Load) -> dict[str, Any]:
    good = [row for row in load.rows if row.error is None]
    n_in = sum(row.prompt_tokens or 0 for row in good)
    n_out = sum(row.output_tokens for row in good)
    rate = args.rate()
    found: dict[str, Any] = {
        'kind': 'serve',
        'model': target.model,
        'url': target.url,
        'endpoint': args.endpoint,
        'workload': name,
        'requests': len(load.rows),
        'failed': len(load.rows) - len(good),
        'errors': _errors(load),
        'stopped': load.stopped,
        'request_rate': 'inf' if rate == float('inf') else rate,
        'burstiness': args.burstiness,
        'max_concurrency': args.max_concurrency,
        'most_at_once': load.most_at_once,
        'seconds': round(load.seconds, 4),
        'input_tokens': n_in,
        'output_tokens': n_out,
        'requests_per_second': round(len(good) / load.seconds, 3),
        'output_tokens_per_second': round(n_out / load.seconds, 1),
        'ttft_ms': spread([row.ttft for row in good if row.ttft is not None]),
        'itl_ms': spread([gap for row in good for gap in row.gaps]),
        'tpot_ms': spread([row.tpot for row in good if row.tpot is not None]),
        'e2e_ms': spread([row.e2e for row in good if row.e2e is not None]),
        'sent_late_ms': spread([] if args.max_concurrency else [row.sent - row.due for row in load.rows]),
        'sampling': {'temperature': args.temperature, 'top_p': args.top_p, 'top_k': args.top_k},
        'seed': args.seed,
        'command': ' '.join(['swiftlite', *sys.argv[1:]]),
    }
    if limits := args.limits():
        kept = sum(_keeps(row, limits) for row in good)
        found |= {'goodput_limits_ms': limits, 'goodput': round(kept / load.seconds, 3), 'kept': kept}
    return found


def _errors(load: Load) -> dict[str, int]:
    """How many requests failed in each way, the most frequent first; errors that differ in numbers only are one."""
    examples: dict[str, str] = {}
    count: Counter[str] = Counter()
    for error in (row.error for row in load.rows if row.error is not None):
        status, mark, text = error.partition(': ')
        count[examples.setdefault(status + mark + re.sub(r'\d+', '0', text), error)] += 1
    return dict(count.most_common())


def _keeps(row: Row, limits: dict[str, float]) -> bool:
    """Whether a request keeps all limits; what it does not have, such as gaps of a single token, it keeps."""
    gaps = spread(row.gaps)['p99']
    times = {'ttft': row.ttft, 'tpot': row.tpot, 'e2e': row.e2e}
    found = {name: None if value is None else value * 1e3 for name, value in times.items()} | {'itl': gaps}
    return all((value := found[name]) is None or value <= limit for name, limit in limits.items())


def _print(result: dict[str, Any]) -> None:
    failed = f', {result["failed"]:,} failed' if result['failed'] else ''
    print(
        f'\n{result["workload"]}: {result["requests"]:,} requests{failed} in {result["seconds"]:,.2f} s, '
        f'{result["requests_per_second"]:,.2f} requests/s, {result["output_tokens_per_second"]:,.0f} output tokens/s, '
        f'at most {result["most_at_once"]:,} at once'
    )
    if result['failed'] < result['requests']:
        show_spreads({title: result[key] for key, title in TITLES.items()})
    late = result['sent_late_ms']['p99']
    if result['request_rate'] != 'inf' and late is not None and late > LATE_MS:
        print(f'requests were sent late (p99 {late:.0f} ms): this machine is too busy to measure exactly')
    if 'goodput' in result:
        limits = ', '.join(f'{name} {value:g} ms' for name, value in result['goodput_limits_ms'].items())
        print(f'goodput: {result["goodput"]:,.2f} requests/s, {result["kept"]:,} kept {limits}')
    for error, count in result['errors'].items():
        print(f'{count:,} failed: {error}')


def _allow_connections() -> None:
    """As many open connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
