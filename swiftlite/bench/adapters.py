"""`swiftlite bench adapters`: throughput, time to first token and memory against the number of adapters."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ..args.bench_adapters import AdapterBenchArgs
from ..engine.environment import SWITCH_INTERVAL, process_environment
from ..engine.offline import LLM
from ..engine.request import EngineRequest, LoRARequest
from ..engine.sampling_params import SamplingParams
from .adapter_folders import REAL, adapter_folders, pick
from .adapter_loads import NUM_LOADED, loads, show_loads
from .adapter_report import Point, plot, result, said, table, title
from .facts import device_name, facts, seconds_since_start
from .load import Load, arrivals
from .memory import memory
from .open_loop import open_loop
from .plot import check as check_plot
from .report import Lines
from .setting import Setting, check_lengths, setting
from .throughput import free, timed
from .workload import Request, bare, other_ids, warm_up

WARM_UPS = 64
AT_ONCE = 32  # adapters read between two looks at the progress


def run(args: AdapterBenchArgs) -> int:
    """Measure, print tables and JSON lines; returns the exit status, 130 after Ctrl-C."""
    if args.plot is not None:
        check_plot()
    os.environ.update(process_environment())  # this one is the engine's
    sys.setswitchinterval(SWITCH_INTERVAL)
    count = max(1, *args.num_adapters, NUM_LOADED if args.num_loads else 0)
    status, points, results = 0, list[Point](), list[dict[str, Any]]()
    with setting(args, tokenizer=False) as what:
        work = _work(args, what)
        with adapter_folders(args, what, count) as adapters:
            lines, shared = Lines(args.output), _shared(args, what) | facts()
            try:
                for point in _points(args, what, work, adapters, lines, shared):
                    points.append(point)
                    print(said(point), flush=True)
                    results.append(result(point, points[0], work.requests) | shared)
                    lines.add(results[-1])
            except KeyboardInterrupt:
                which = 'these are the measurements that were finished' if points else 'no measurement was finished'
                print(f'stopped: {which}', file=sys.stderr)
                status = 130
    if points:
        table(points)
        if args.plot is not None:
            plot(args.plot, results)
    return status


@dataclass
class Work:
    """What is asked of the engine: all at once, and over time."""

    requests: list[Request]
    arriving: list[Request]
    moments: list[float] = field(default_factory=list)


def _work(args: AdapterBenchArgs, what: Setting) -> Work:
    (name,), vocab = args.workload, what.config.vocab_size
    work = Work(bare(args, name, vocab, args.num_prompts), [])
    if args.latency_requests:
        work.arriving = other_ids(bare(args, name, vocab, args.latency_requests), 2, vocab)
        work.arriving = [work.arriving[index % len(work.arriving)] for index in range(args.latency_requests)]
        work.moments = arrivals(args.latency_requests, args.request_rate, 1.0, args.seed)
    check_lengths(args, name, work.requests + work.arriving, what.config)
    n_in, n_out = sum(len(r.prompt) for r in work.requests), sum(r.output_len for r in work.requests)
    print(
        f'{name}: {len(work.requests):,} requests, {n_in:,} tokens in, {n_out:,} tokens out, '
        f'{what.name} in {what.dtype} on {device_name(what.config.device)}',
        flush=True,
    )
    return work


def _points(
    args: AdapterBenchArgs,
    what: Setting,
    work: Work,
    adapters: Sequence[LoRARequest],
    lines: Lines,
    shared: dict[str, Any],
) -> Iterator[Point]:
    """Each measurement as soon as it is known, the base first."""
    bench = AdapterBench(args, what, work, adapters, lora=True)
    print(f'the engine was ready {seconds_since_start():.1f} s after the command', flush=True)
    try:
        bench.compile()
        yield bench.base('base')
        for count in dict.fromkeys(filter(None, args.num_adapters)):
            yield from bench.adapted(count)
        if args.num_loads:
            some = adapters[: min(NUM_LOADED, args.max_loras)]
            found = loads(bench.llm.engine, some, args.num_loads, what.config.vocab_size)
            show_loads(found)
            lines.add({'kind': 'adapter_loads'} | found | shared)
            if found['loads'] < args.num_loads:
                raise KeyboardInterrupt
    finally:
        bench.llm.shutdown()
    del bench
    free(what.config.device)
    if args.lora_off:
        bench = AdapterBench(args, what, work, adapters, lora=False)
        try:
            bench.compile()
            yield bench.base('LoRA off')
        finally:
            bench.llm.shutdown()


class AdapterBench:
    """An engine, and the requests it is measured with."""

    def __init__(
        self, args: AdapterBenchArgs, what: Setting, work: Work, adapters: Sequence[LoRARequest], *, lora: bool
    ):
        self.args, self.work, self.adapters = args, work, adapters
        self.vocab = what.config.vocab_size
        self.llm = LLM(what.model, skip_tokenizer_init=True, **what.options | {'enable_lora': lora})
        self._tried = adapters[: REAL * len(args.lora_rank)] if lora else []

    def compile(self) -> None:
        """Run what is compiled or loaded when it is first used: the base, and adapters of every rank."""
        requests = warm_up(self.work.requests, WARM_UPS, self.vocab)
        self._generate(requests, [None] * len(requests), bar=False)
        if self._tried:
            self._generate(requests, self._turns(self._tried, len(requests)), bar=False)
            self._forget()

    def base(self, name: str) -> Point:
        """Requests for no adapter."""
        point = self._point(0, name, [None] * len(self.work.requests))
        self._over_time(point, [None] * len(self.work.arriving))
        return point

    def adapted(self, count: int) -> Iterator[Point]:
        """Requests for so many adapters: warm, or cold and then warm where they are drawn."""
        args, work = self.args, self.work
        loras, arriving = (
            [self.adapters[index] for index in pick(args.adapter_choice, count, len(requests), args.seed + seed)]
            for seed, requests in enumerate((work.requests, work.arriving))
        )
        if args.adapter_choice == 'round_robin':
            asked = list(dict.fromkeys((*loras, *arriving)))
            self._read(asked)
            on_device = asked[: args.max_loras]
            many = [work.requests[index % len(work.requests)] for index in range(max(len(on_device), WARM_UPS))]
            self._generate(warm_up(many, len(many), self.vocab), self._turns(on_device, len(many)), bar=True)
            points = [self._point(count, 'warm', loras)]
        else:
            self._forget()
            points = [self._point(count, 'cold', loras), self._point(count, 'warm', loras)]
            self._forget()
        self._over_time(points[0], arriving)
        yield from points

    def _point(self, count: int, name: str, loras: Sequence[LoRARequest | None]) -> Point:
        """All requests at once, through `LLM.generate`; where adapters are read beside others, the loop below it."""
        engine, requests = self.llm.engine, self.work.requests
        before = engine.stats()
        self.llm.reset_prefix_cache()
        if name == 'cold':
            seconds = self._arrive(requests, loras, [0.0] * len(loras), f'{count} adapters, cold').seconds
        else:
            seconds = self._generate(requests, loras, bar=True)
        after = engine.stats()
        return Point(
            count,
            name,
            distinct=len({lora.lora_int_id for lora in loras if lora is not None}),
            seconds=seconds,
            output_tokens=sum(r.output_len for r in requests),
            memory=memory(engine),
            on_device=after['adapters_on_device'],
            in_memory=after['adapters_in_memory'],
            reads=after['adapter_reads'] - before['adapter_reads'],
            uploads=after['adapter_uploads'] - before['adapter_uploads'],
        )

    def _over_time(self, point: Point, loras: Sequence[LoRARequest | None]) -> None:
        """Requests that arrive, if there are any."""
        if loras:
            self.llm.reset_prefix_cache()
            point.load = self._arrive(self.work.arriving, loras, self.work.moments, f'{title(point)}, arriving')

    def _arrive(
        self, requests: Sequence[Request], loras: Sequence[LoRARequest | None], moments: Sequence[float], said: str
    ) -> Load:
        engine_requests = [
            EngineRequest(f'{index}', r.prompt, _params(r), lora)
            for index, (r, lora) in enumerate(zip(requests, loras, strict=True))
        ]
        return open_loop(self.llm.engine, engine_requests, moments, said)

    def _generate(self, requests: Sequence[Request], loras: Sequence[LoRARequest | None], bar: bool) -> float:
        return timed(self.llm, requests, [_params(r) for r in requests], loras, bar)

    def _turns(self, adapters: Sequence[LoRARequest], count: int) -> list[LoRARequest | None]:
        return [adapters[index % len(adapters)] for index in range(count)]

    def _read(self, adapters: Sequence[LoRARequest]) -> None:
        """Have these in host memory, as far as they fit."""
        for first in tqdm(range(0, len(adapters), AT_ONCE), desc='reading adapters', disable=None, leave=False):
            self.llm.engine.add_missing(adapters[first : first + AT_ONCE])

    def _forget(self) -> None:
        """Have no adapter, in no memory."""
        for lora in self.adapters:
            self.llm.engine.remove_lora(lora.lora_int_id)


def _params(request: Request) -> SamplingParams:
    return SamplingParams(temperature=0, ignore_eos=True, max_tokens=request.output_len, detokenize=False)


def _shared(args: AdapterBenchArgs, what: Setting) -> dict[str, Any]:
    """What holds for every line of this run."""
    return {
        'model': what.name,
        'device': device_name(what.config.device),
        'dtype': what.dtype,
        'workload': args.workload[0],
        'adapter_choice': args.adapter_choice,
        'lora_rank': args.lora_rank,
        'max_loras': args.max_loras,
        'max_lora_rank': args.max_lora_rank,
        'max_cpu_loras': args.max_cpu_loras,
        'request_rate': args.request_rate if args.latency_requests else None,
        'latency_requests': args.latency_requests,
        'tensor_parallel_size': args.tensor_parallel_size,
        'max_model_len': what.config.max_model_len,
        'seed': args.seed,
        'command': ' '.join(['swiftlite', *sys.argv[1:]]),
    }
