"""`swiftlite bench throughput`: tokens per second of the engine, and of others on the same requests."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..args.bench import BenchArgs
from ..engine.offline import LLM
from ..engine.request import LoRARequest
from ..engine.sampling_params import SamplingParams
from .ceilings import Ceilings, measure
from .facts import device_name, facts, seconds_since_start
from .floors import Device, floor_seconds
from .report import Lines, show
from .setting import Setting, setting, workloads
from .workload import Request, warm_up

BASELINES = {'batch': 'transformers, one padded batch', 'single': 'transformers, one by one'}


@dataclass
class Timing:
    """Seconds of each repeat of a workload, and of the engine's start."""

    engine: str
    workload: str
    seconds: list[float] = field(default_factory=list)
    startup: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run(args: BenchArgs) -> int:
    """Measure, print a table and JSON lines; returns the exit status, 130 after Ctrl-C."""
    detokenize = args.temperature > 0 if args.detokenize is None else args.detokenize
    timings: list[Timing] = []
    ceilings: Ceilings | None = None
    status = 0
    if 'vllm' in args.engine:
        from . import vllm_engine

        vllm_engine.check(args.vllm_python)
    with setting(args, detokenize) as what:
        work = workloads(args, what.config)
        lines = Lines(args.output)
        for name, requests in work.items():
            print(_describe(name, requests, what), flush=True)
        try:
            for timing in _timings(args, what, work, detokenize):
                timings.append(timing)
            free(what.config.device)
            if args.ceilings:
                ceilings = measure(what.config.device, what.config.dtype)
        except KeyboardInterrupt:
            said = 'these are the measurements that were finished' if timings else 'no measurement was finished'
            print(f'stopped: {said}', file=sys.stderr)
            status = 130
    shared = _shared(args, what, detokenize) | facts()
    if ceilings is not None:
        shared['ceilings'] = ceilings.numbers()
        print(f'{device_name(what.config.device)}: {ceilings}')
    results = [_result(args, what, work[t.workload], t, timings, ceilings) for t in timings]
    if results:
        _table(results)
    for result in results:
        lines.add(result | shared)
    return status


def _timings(args: BenchArgs, what: Setting, work: dict[str, list[Request]], detokenize: bool) -> Iterator[Timing]:
    """The timing of each engine and workload, as soon as it is known."""
    for engine in dict.fromkeys(args.engine):
        if engine == 'vllm':
            from . import vllm_engine

            for line in vllm_engine.timings(args, what, work, detokenize):
                yield Timing('vllm', **line)
        else:
            yield from _engine(args, what, work, detokenize)
            free(what.config.device)  # for what comes next
    default = list(BASELINES) if args.workload == ['mixed'] and args.engine == ['swiftlite'] else []
    names = [name for name in (default if args.baselines is None else args.baselines) if name != 'none']
    if names:
        yield from _baselines(names, what, work)


def _engine(args: BenchArgs, what: Setting, work: dict[str, list[Request]], detokenize: bool) -> Iterator[Timing]:
    llm = LLM(what.model, skip_tokenizer_init=not detokenize, **what.options)
    startup = seconds_since_start() if args.engine[0] == 'swiftlite' else None
    if startup is not None:
        print(f'the engine was ready {startup:.1f} s after the command', flush=True)
    loras = [LoRARequest(f'adapter-{i}', i + 1, path) for i, path in enumerate(what.adapters)]
    try:
        for name, requests in work.items():
            _generate(args, llm, warm_up(requests, args.num_warmups, what.config.vocab_size), loras, detokenize, False)
            timing = Timing('swiftlite', name, startup=startup)
            for _ in range(args.repeats):
                llm.reset_prefix_cache()
                timing.seconds.append(_generate(args, llm, requests, loras, detokenize, True))
            yield timing
    finally:
        llm.shutdown()


def _generate(
    args: BenchArgs, llm: LLM, requests: list[Request], loras: list[LoRARequest], detokenize: bool, bar: bool
) -> float:
    """Seconds for all requests at once."""
    if not requests:
        return 0.0
    common = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, top_k=args.top_k, ignore_eos=True, detokenize=detokenize
    )
    params = [
        common.clone(max_tokens=r.output_len, seed=args.seed + i if args.temperature else None)
        for i, r in enumerate(requests)
    ]
    adapters = [None if r.adapter is None else loras[r.adapter] for r in requests]
    return timed(llm, requests, params, adapters, bar)


def timed(
    llm: LLM,
    requests: Sequence[Request],
    params: Sequence[SamplingParams],
    loras: Sequence[LoRARequest | None],
    bar: bool,
) -> float:
    """Seconds of one `LLM.generate` with all requests."""
    prompts: list[Any] = [{'prompt_token_ids': r.prompt} for r in requests]
    start = time.perf_counter()
    outs = llm.generate(prompts, params, use_tqdm=bar, lora_request=loras)
    seconds = time.perf_counter() - start
    assert [len(o.outputs[0].token_ids) for o in outs] == [r.output_len for r in requests]
    return seconds


def _baselines(names: list[str], what: Setting, work: dict[str, list[Request]]) -> Iterator[Timing]:
    """transformers, after a warm-up on one short request."""
    from . import transformers_baseline as baseline

    runs = {'batch': baseline.run_batch, 'single': baseline.run_single}
    model = baseline.load(what.config.path, what.config.dtype, what.config.device)
    for workload, requests in work.items():
        if workload.endswith('-lora'):
            continue
        baseline.run_batch(model, [Request(requests[0].prompt, 2)])
        for name in names:
            yield Timing(BASELINES[name], workload, [runs[name](model, requests)])


def _describe(name: str, requests: list[Request], what: Setting) -> str:
    return (
        f'{name}: {len(requests):,} requests, {sum(len(r.prompt) for r in requests):,} tokens in, '
        f'{sum(r.output_len for r in requests):,} tokens out, '
        f'{what.name} in {what.dtype} on {device_name(what.config.device)}'
    )


def _shared(args: BenchArgs, what: Setting, detokenize: bool) -> dict[str, Any]:
    """What holds for every line of this run."""
    return {
        'device': device_name(what.config.device),
        'dtype': what.dtype,
        'tensor_parallel_size': args.tensor_parallel_size,
        'max_model_len': what.config.max_model_len,
        'sampling': {'temperature': args.temperature, 'top_p': args.top_p, 'top_k': args.top_k},
        'detokenize': detokenize,
        'seed': args.seed,
        'command': ' '.join(['swiftlite', *sys.argv[1:]]),
    }


def _result(
    args: BenchArgs,
    what: Setting,
    requests: list[Request],
    timing: Timing,
    timings: list[Timing],
    ceilings: Ceilings | None,
) -> dict[str, Any]:
    n_in, n_out = sum(len(r.prompt) for r in requests), sum(r.output_len for r in requests)
    s = timing.median
    found: dict[str, Any] = {
        'kind': 'throughput',
        'engine': timing.engine,
        'model': what.name,
        'workload': timing.workload,
        'requests': len(requests),
        'input_tokens': n_in,
        'output_tokens': n_out,
        'seconds': round(s, 4),
        'all_seconds': [round(each, 4) for each in timing.seconds],
        'output_tokens_per_second': round(n_out / s, 1),
        'input_tokens_per_second': round(n_in / s, 1),
    }
    if timing.startup is not None:
        found['startup_seconds'] = round(timing.startup, 2)
    if requests[0].adapter is not None:
        found |= {'adapters': args.num_adapters, 'lora_rank': args.lora_rank}
    ours = next((t for t in timings if t.engine == 'swiftlite' and t.workload == timing.workload), None)
    if ours is not None and timing is not ours:
        found['swiftlite_is_faster_by'] = round(s / ours.median, 3)
    bare = next((t for t in timings if t.engine == timing.engine and f'{t.workload}-lora' == timing.workload), None)
    if bare is not None:
        found['share_of_bare_model'] = round(bare.median / s, 3)
    if ceilings is not None:
        size = args.tensor_parallel_size
        config = what.config
        device = Device(
            ceilings.copy_bytes * size,
            ceilings.gemm_flops * size,
            config.dtype.itemsize,
            config.max_num_seqs,
            config.max_num_batched_tokens,
        )
        floor = floor_seconds(config.decoder, device, requests)
        found |= {'floor_seconds': round(floor, 4), 'share_of_ceiling': round(floor / s, 3)}
    return found


def _table(results: list[dict[str, Any]]) -> None:
    rows = []
    for r in results:
        speeds = (f'{r[f"{way}_tokens_per_second"]:,.0f}' for way in ('output', 'input'))
        share, bare = (f'{r[key]:.0%}' if key in r else '' for key in ('share_of_ceiling', 'share_of_bare_model'))
        faster = f'{r["swiftlite_is_faster_by"]:.2f} x as fast' if 'swiftlite_is_faster_by' in r else ''
        rows.append([r['workload'], r['engine'], f'{r["seconds"]:,.2f}', *speeds, share, bare, faster])
    headers = ('workload', 'engine', 'seconds', 'output tok/s', 'input tok/s', 'of ceiling', 'of bare', 'swiftlite is')
    show(headers, rows, texts=2)


def free(device: str) -> None:
    """Give back the memory that nothing uses any more."""
    gc.collect()
    if device.startswith('cuda'):
        torch.cuda.empty_cache()
