"""vLLM on the same requests, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..args.bench import BenchArgs
from ..errors import SwiftliteError, UsageError
from . import vllm_child
from .setting import Setting
from .workload import Request, warm_up

DTYPES = {'auto': 'auto', 'bf16': 'bfloat16', 'fp16': 'float16', 'fp32': 'float32'}
# options of the engine that vLLM knows under the same name
SAME = (
    'tensor_parallel_size',
    'gpu_memory_utilization',
    'max_model_len',
    'max_num_seqs',
    'max_num_batched_tokens',
    'enable_prefix_caching',
    'enforce_eager',
    'load_format',
    'max_loras',
    'max_lora_rank',
    'max_cpu_loras',
    'enable_lora',
    'kv_cache_dtype',
    'num_gpu_blocks_override',
    'revision',
    'seed',
)


def check(python: str | None) -> None:
    """UsageError where vLLM is not installed."""
    if python is None:
        if find_spec('vllm') is None:
            raise UsageError(
                '--engine vllm needs vLLM, which is not installed here: leave it out, or name a Python that has it '
                'with --vllm_python'
            )
        return
    if shutil.which(python) is None:
        raise UsageError(f"--vllm_python '{python}' is no program")
    if subprocess.run([python, '-c', 'import vllm'], capture_output=True).returncode:
        raise UsageError(f"--vllm_python '{python}' has no vLLM")


def timings(
    args: BenchArgs, what: Setting, work: dict[str, list[Request]], detokenize: bool
) -> Iterator[dict[str, Any]]:
    """{workload, seconds, startup} of each workload as soon as it is known; SwiftliteError where vLLM fails."""
    spec = _spec(args, what, work, detokenize)
    with tempfile.TemporaryDirectory(prefix='swiftlite-bench-') as folder:
        file = Path(folder, 'spec.json')
        file.write_text(json.dumps(spec), encoding='utf-8')
        command = [args.vllm_python or sys.executable, vllm_child.__file__, str(file)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said: deque[str] = deque(maxlen=1)
        try:
            for line in child.stdout:
                if line.startswith(vllm_child.MARK):
                    yield json.loads(line.removeprefix(vllm_child.MARK))
                elif line.strip():
                    said.append(line.strip())
                    print(line, end='', file=sys.stderr)
            if child.wait():
                last = f': {said[0]}' if said else ''
                raise SwiftliteError(f'vLLM ended with status {child.returncode}, as said above{last}')
        finally:
            child.terminate()
            child.wait()
            child.stdout.close()


def _spec(args: BenchArgs, what: Setting, work: dict[str, list[Request]], detokenize: bool) -> dict[str, Any]:
    """What the child needs to know. Options that were not given stay vLLM's own."""
    options = {name: what.options[name] for name in SAME if what.options.get(name) is not None}
    if not what.options['enable_lora']:
        options = {name: value for name, value in options.items() if 'lora' not in name}
    options['dtype'] = DTYPES[args.dtype]
    return {
        'model': what.config.path,
        'options': options,
        'adapters': what.adapters,
        'detokenize': detokenize,
        'sampling': {'temperature': args.temperature, 'top_p': args.top_p, 'top_k': args.top_k},
        'seed': args.seed,
        'repeats': args.repeats,
        'work': [
            {
                'workload': name,
                'requests': [(r.prompt, r.output_len, r.adapter) for r in requests],
                'warm_up': [
                    (r.prompt, r.output_len, r.adapter)
                    for r in warm_up(requests, args.num_warmups, what.config.vocab_size)
                ],
            }
            for name, requests in work.items()
        ],
    }
