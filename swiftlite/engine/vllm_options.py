"""Options of vLLM's `LLM(...)` that mean nothing to this engine, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ..errors import SwiftliteError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needless:
    """Accepted with any value, or only with those of `values`, where another one would ask for something."""

    reason: str
    values: tuple[Any, ...] | None = None


ONE_ENGINE = Needless('there is one engine, which starts its own processes')
BY_ITSELF = Needless('the engine decides this by itself')
IN_MEMORY = 'nothing is swapped: a preempted request is computed again'
NEEDLESS: dict[str, Needless] = {
    'trust_remote_code': Needless('no code is loaded from outside'),
    'swap_space': Needless(IN_MEMORY),
    'cpu_offload_gb': Needless('weights stay on the device', (None, 0)),
    'worker_use_ray': ONE_ENGINE,
    'engine_use_ray': ONE_ENGINE,
    'distributed_executor_backend': ONE_ENGINE,
    'pipeline_parallel_size': Needless('use tensor_parallel_size', (None, 1)),
    'data_parallel_size': Needless('use tensor_parallel_size', (None, 1)),
    'quantization': Needless('weights are read as the checkpoint says', (None,)),
    'kv_cache_dtype': Needless('the cache has the dtype of the model', (None, 'auto')),
    'runner': Needless('models generate', (None, 'auto', 'generate')),
    'task': Needless('models generate', (None, 'auto', 'generate')),
    'tokenizer_mode': Needless('there is one way to load a tokenizer', (None, 'auto', 'fast', 'hf')),
    'enable_chunked_prefill': Needless('prompts are always read in chunks'),
    'disable_custom_all_reduce': BY_ITSELF,
    'disable_async_output_proc': BY_ITSELF,
    'disable_log_stats': Needless('an engine in this process logs no statistics'),
    'max_seq_len_to_capture': BY_ITSELF,
    'max_context_len_to_capture': BY_ITSELF,
    'max_cpu_loras': BY_ITSELF,
    'fully_sharded_loras': BY_ITSELF,
    'num_scheduler_steps': BY_ITSELF,
    'use_v2_block_manager': BY_ITSELF,
    'max_num_partial_prefills': BY_ITSELF,
    'async_scheduling': BY_ITSELF,
    'compilation_config': Needless('nothing is compiled at the start'),
}


def without_needless(options: dict[str, Any]) -> dict[str, Any]:
    """The other options, after one notice; SwiftliteError for a value that asks for what this engine does not do."""
    needless = {name: NEEDLESS[name] for name in options if name in NEEDLESS}
    for name, row in needless.items():
        if row.values is not None and options[name] not in row.values:
            valid = ' or '.join(map(repr, row.values))
            raise SwiftliteError(f'{name} is {options[name]!r}, but can only be {valid} here: {row.reason}.')
    if needless:
        reasons = '; '.join(f'{name} ({row.reason})' for name, row in needless.items())
        log.warning('These options change nothing here: %s.', reasons)
    return {name: value for name, value in options.items() if name not in needless}
