"""`swiftlite bench latency`: one batch of equal requests, each token timed as it leaves the engine."""

from __future__ import annotations

import sys
import time
from random import Random
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ..args.bench import BenchArgs
from ..engine.offline import LLM
from ..engine.request import EngineRequest
from ..engine.sampling_params import SamplingParams
from ..errors import UsageError
from .facts import device_name, facts, seconds_since_start
from .report import Lines, show_spreads, spread
from .setting import Setting, setting
from .workload import VOCAB, Request, uniform, warm_up


class Moments:
    """Seconds of what happened to each request of the batches so far."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.gaps: list[float] = []
        self.whole: list[float] = []


def run(args: BenchArgs) -> int:
    """Measure, print a table and a JSON line; returns the exit status, 130 after Ctrl-C."""
    with setting(args, tokenizer=False) as what:
        if args.input_len + args.output_len > what.config.max_model_len:
            raise UsageError(
                f'--input_len {args.input_len} and --output_len {args.output_len} make more than '
                f"the model's {what.config.max_model_len} tokens"
            )
        draw = uniform(args.input_len, args.output_len)(Random(args.seed), min(what.config.vocab_size, VOCAB))
        requests = [next(draw) for _ in range(args.batch_size)]
        lines = Lines(args.output)
        llm = LLM(what.model, skip_tokenizer_init=True, **what.options)
        startup = seconds_since_start()
        print(
            f'{args.batch_size} x {args.input_len} tokens in, {args.output_len} out, {what.name} in {what.dtype} on '
            f'{device_name(what.config.device)}; the engine was ready {startup:.1f} s after the command',
            flush=True,
        )
        moments, status = Moments(), 0
        try:
            if args.num_warmups:
                _batch(args, llm, warm_up(requests, args.num_warmups, what.config.vocab_size), Moments())
            for _ in tqdm(range(args.repeats), desc='batches', disable=None, leave=False):
                llm.reset_prefix_cache()
                _batch(args, llm, requests, moments)
        except KeyboardInterrupt:
            print('stopped: this is what was measured so far', file=sys.stderr)
            status = 130
        finally:
            llm.shutdown()
    if moments.first:
        result = _result(args, what, moments, startup)
        show_spreads({name: result[key] for name, key in TABLE.items()})
        if result['output_tokens_per_second'] is not None:
            print(f'{result["output_tokens_per_second"]:,.1f} output tokens/s')
        lines.add(result | facts())
    return status


TABLE = {
    'time to first token': 'ttft_ms',
    'between tokens': 'itl_ms',
    'whole request': 'e2e_ms',
}


def _batch(args: BenchArgs, llm: LLM, requests: list[Request], moments: Moments) -> None:
    """Run a batch through the engine and note when its tokens came."""
    engine = llm.engine
    params = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, top_k=args.top_k, ignore_eos=True, detokenize=False
    )
    start = time.perf_counter()
    last: dict[str, float] = {}
    try:
        for i, r in enumerate(requests):
            seed = args.seed + i if args.temperature else None
            engine.add_request(EngineRequest(f'{i}', r.prompt, params.clone(max_tokens=r.output_len, seed=seed)))
        while engine.has_work:
            outputs = engine.step()
            now = time.perf_counter()
            for out in outputs:
                if out.token_ids and out.request_id in last:
                    moments.gaps.append(now - last[out.request_id])
                elif out.token_ids:
                    moments.first.append(now - start)
                last[out.request_id] = now
                if out.finish_reason is not None:
                    moments.whole.append(now - start)
    finally:
        for i in range(len(requests)):
            engine.abort(f'{i}')


def _result(args: BenchArgs, what: Setting, moments: Moments, startup: float) -> dict[str, Any]:
    batches = len(moments.whole) // args.batch_size
    tokens = batches * args.batch_size * args.output_len
    seconds = sum(max(moments.whole[i * args.batch_size : (i + 1) * args.batch_size]) for i in range(batches))
    return {
        'kind': 'latency',
        'engine': 'swiftlite',
        'model': what.name,
        'dtype': what.dtype,
        'device': device_name(what.config.device),
        'tensor_parallel_size': args.tensor_parallel_size,
        'batch_size': args.batch_size,
        'input_len': args.input_len,
        'output_len': args.output_len,
        'batches': batches,
        'temperature': args.temperature,
        'seed': args.seed,
        'output_tokens_per_second': round(tokens / seconds, 1) if batches else None,
        'ttft_ms': spread(moments.first),
        'itl_ms': spread(moments.gaps),
        'e2e_ms': spread(moments.whole),
        'startup_seconds': round(startup, 2),
        'command': ' '.join(['swiftlite', *sys.argv[1:]]),
    }
