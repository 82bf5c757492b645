"""`swiftlite bench throughput`: output tokens per second of the engine and of transformers on the same requests."""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..args.bench import BenchArgs
from ..engine.offline import LLM
from ..engine.sampling_params import SamplingParams
from ..errors import UsageError
from .workload import Request, mixed


def run(args: BenchArgs) -> int:
    """Measure, print a table and its JSON line; returns the exit status."""
    for low, high in (('min_input_len', 'max_input_len'), ('min_output_len', 'max_output_len')):
        if getattr(args, low) > getattr(args, high):
            raise UsageError(f'--{low} {getattr(args, low)} is larger than --{high} {getattr(args, high)}')
    source = args.source()
    llm = LLM(
        source.model_id_or_path, skip_tokenizer_init=True, dtype=args.dtype, seed=args.seed, **args.engine_options()
    )
    model = llm.engine.model_config
    if args.max_input_len + args.max_output_len > model.max_model_len:
        raise UsageError(
            f'--max_input_len {args.max_input_len} and --max_output_len {args.max_output_len} make more than '
            f"the model's {model.max_model_len} tokens"
        )
    requests = mixed(
        args.num_prompts,
        (args.min_input_len, args.max_input_len),
        (args.min_output_len, args.max_output_len),
        model.vocab_size,
        args.seed,
    )
    tokens = sum(r.output_len for r in requests)
    print(
        f'{args.num_prompts} requests, {sum(len(r.prompt) for r in requests)} tokens in, {tokens} tokens out, '
        f'{source.name} in {str(model.dtype).removeprefix("torch.")} on {device_name(model.device)}'
    )
    seconds = {'swiftlite': run_engine(llm, requests)}
    llm.shutdown()
    if 'none' not in args.baselines:
        seconds |= run_baselines(args.baselines, model.path, model.dtype, model.device, requests)
    result: dict[str, Any] = {
        'model': source.name,
        'device': device_name(model.device),
        'dtype': str(model.dtype).removeprefix('torch.'),
        'requests': len(requests),
        'output_tokens': tokens,
        'tokens_per_second': {name: round(tokens / s, 1) for name, s in seconds.items()},
        'ratio': {name: round(s / seconds['swiftlite'], 2) for name, s in seconds.items() if name != 'swiftlite'},
        'versions': {'swiftlite': __version__} | {p: version(p) for p in ('torch', 'transformers')},
        'threads': torch.get_num_threads(),
    }
    print_table(seconds, tokens)
    print(json.dumps(result))
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return 0


def run_engine(llm: LLM, requests: list[Request]) -> float:
    """Seconds for all requests at once, after a warm-up on a few others; nothing is in the prefix cache."""
    warm = [[(t + 7) % llm.engine.model_config.vocab_size for t in r.prompt] for r in requests[:8]]
    params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=4, detokenize=False)
    llm.generate([{'prompt_token_ids': p} for p in warm], params, use_tqdm=False)
    each = [params.clone(max_tokens=r.output_len) for r in requests]
    start = time.perf_counter()
    outs = llm.generate([{'prompt_token_ids': r.prompt} for r in requests], each)
    seconds = time.perf_counter() - start
    assert [len(o.outputs[0].token_ids) for o in outs] == [r.output_len for r in requests]
    return seconds


def run_baselines(
    names: list[str], path: str, dtype: torch.dtype, device: str, requests: list[Request]
) -> dict[str, float]:
    """Seconds by baseline, after a warm-up on one short request."""
    from . import transformers_baseline as baseline

    model = baseline.load(path, dtype, device)
    baseline.run_batch(model, [Request(requests[0].prompt, 2)])
    found = {}
    if 'batch' in names:
        found['transformers, one padded batch'] = baseline.run_batch(model, requests)
    if 'single' in names:
        found['transformers, one by one'] = baseline.run_single(model, requests)
    return found


def print_table(seconds: dict[str, float], tokens: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('engine', 'seconds', 'output tokens/s', 'swiftlite is')
    for name, s in seconds.items():
        ratio = '' if name == 'swiftlite' else f'{s / seconds["swiftlite"]:.2f} x as fast'
        table.add_row(name, f'{s:.2f}', f'{tokens / s:,.0f}', ratio)
    Console().print(table)


def device_name(device: str) -> str:
    """The GPU's name, or the processor with its thread count."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
