"""DeepSpeed's configuration for --deepspeed; DeepSpeed itself is an extra."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from swiftlite.errors import UsageError


def deepspeed_config(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """The configuration of ZeRO's stage 1, 2 or 3 (arXiv 1910.02054), with _offload in the CPU's memory, or a file's.

    'auto' is filled in by transformers from the other flags.

    Raises:
        UsageError: DeepSpeed is not installed, or the file is no JSON object.
    """
    if find_spec('deepspeed') is None:
        raise UsageError("--deepspeed needs DeepSpeed: pip install 'swiftlite[deepspeed]', or use --fsdp full_shard")
    if not name.startswith('zero'):
        try:
            config = json.loads(Path(name).expanduser().read_text(encoding='utf-8'))
        except ValueError as error:
            raise UsageError(f"--deepspeed '{name}' is no JSON: {error}") from error
        if not isinstance(config, dict):
            raise UsageError(f"--deepspeed '{name}' holds no JSON object")
        return config
    stage, _, offload = name.removeprefix('zero').partition('_')
    zero: dict[str, Any] = {'stage': int(stage), 'overlap_comm': True, 'contiguous_gradients': True}
    if stage == '3':
        zero |= {'stage3_gather_16bit_weights_on_model_save': True}
    if offload:
        zero['offload_optimizer'] = {'device': 'cpu', 'pin_memory': True}
        if stage == '3':
            zero['offload_param'] = {'device': 'cpu', 'pin_memory': True}
    return {
        'zero_optimization': zero,
        'bf16': {'enabled': dtype == torch.bfloat16},
        'fp16': {'enabled': dtype == torch.float16},
        'train_batch_size': 'auto',
        'train_micro_batch_size_per_gpu': 'auto',
        'gradient_accumulation_steps': 'auto',
        'gradient_clipping': 'auto',
        'zero_allow_untested_optimizer': True,  # AdamW is torch's
        'zero_force_ds_cpu_optimizer': False,
    }
