"""DeepSpeed's configuration for --deepspeed, and what ZeRO asks of a model; DeepSpeed itself is an extra.

ZeRO (arXiv 1910.02054) shares out the optimizer's state (stage 1), the gradients (2) and the weights (3); 0 nothing.
"""

import json
import logging
import re
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from swiftlite.errors import UsageError
from swiftlite.train.scale.memory import Estimate

# said by flags: transformers fills 'auto' in
FILLED = {
    'train_batch_size': '--batch_size',
    'train_micro_batch_size_per_gpu': '--batch_size',
    'gradient_accumulation_steps': '--gradient_accumulation_steps',
    'gradient_clipping': '--max_grad_norm',
}
OURS = {'optimizer': '--learning_rate, --weight_decay and --adam_*', 'scheduler': '--lr_scheduler_type and --warmup_*'}
ADAM = ('adam', 'adamw')  # in DeepSpeed both decouple the weight decay
SECTIONS = ('bf16', 'fp16', 'optimizer', 'scheduler', 'zero_optimization')
STAGE = re.compile('zero[0-3]|zero[23]_offload')  # of --deepspeed; all else is a file
GATHER = 'stage3_gather_16bit_weights_on_model_save'
MASTER = 4  # bytes of the fp32 copy of a weight that is trained in half precision


def deepspeed_config(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """The configuration of a stage of ZeRO, with _offload in the CPU's memory, or a file's.

    'auto' is filled in by transformers from the other flags.

    Raises:
        UsageError: DeepSpeed is not installed, or the file is no JSON object or says what flags say.
    """
    if find_spec('deepspeed') is None:
        raise UsageError("--deepspeed needs DeepSpeed: pip install 'swiftlite[deepspeed]', or use --fsdp full_shard")
    hush()
    config = {'zero_optimization': zero(name)} if STAGE.fullmatch(name) else own_config(name, dtype)
    return {
        'bf16': {'enabled': dtype == torch.bfloat16},
        'fp16': {'enabled': dtype == torch.float16},
        'zero_allow_untested_optimizer': True,  # AdamW is torch's
        'zero_force_ds_cpu_optimizer': False,
        **dict.fromkeys(FILLED, 'auto'),
        **config,
    }


def zero(name: str) -> dict[str, Any]:
    stage, _, offload = name.removeprefix('zero').partition('_')
    found: dict[str, Any] = {'stage': int(stage), 'overlap_comm': True, 'contiguous_gradients': True}
    if stage == '3':
        found[GATHER] = True
    if offload:
        found['offload_optimizer'] = {'device': 'cpu', 'pin_memory': True}
        if stage == '3':
            found['offload_param'] = {'device': 'cpu', 'pin_memory': True}
    return found


def own_config(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """A user's file; sections that only say 'auto' where flags speak are left out."""
    try:
        config = json.loads(Path(name).expanduser().read_text(encoding='utf-8'))
    except ValueError as error:
        raise UsageError(f"--deepspeed '{name}' is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--deepspeed '{name}' holds no JSON object")
    for key, flag in FILLED.items():
        if config.get(key, 'auto') != 'auto':
            raise UsageError(f'--deepspeed \'{name}\' has {key} {config[key]}: write "auto" there and give {flag}')
    for key in SECTIONS:
        _check_section(f"--deepspeed '{name}'", key, config)
    if str(chosen := (config.get('optimizer') or {}).get('type', 'AdamW')).lower() not in ADAM:
        raise UsageError(f"--deepspeed '{name}' has the optimizer {chosen}, and the training's is AdamW: leave it out")
    for key, flags in OURS.items():
        given = (config.pop(key, None) or {}).get('params') or {}
        if said := next((f'{k} {v}' for k, v in given.items() if v != 'auto' and not isinstance(v, bool)), None):
            raise UsageError(f"--deepspeed '{name}' has a section '{key}' with {said}: leave it out and give {flags}")
    for key, kind in (('bf16', torch.bfloat16), ('fp16', torch.float16)):
        half = config.get(key) or {}
        if half.get('enabled', 'auto') not in ('auto', dtype == kind):
            shown = str(dtype).removeprefix('torch.')
            raise UsageError(
                f"--deepspeed '{name}' has {key} {str(half['enabled']).lower()}, and the training is in {shown}: write "
                '"auto" there, and give --dtype'
            )
        if key in config:
            config[key] = {**half, 'enabled': dtype == kind}
    shared = config.get('zero_optimization') or {}
    if shared.get('stage') == 3 and shared.setdefault(GATHER, True) is False:
        raise UsageError(f"--deepspeed '{name}' has {GATHER} false: checkpoints would hold no weights to serve")
    return config


def _check_section(file: str, key: str, config: dict[str, Any]) -> None:
    """Refuse what is no object, or a stage that is none."""
    section = config.get(key)
    if section is None:
        return
    if not isinstance(section, dict) or not isinstance(section.get('params') or {}, dict):
        raise UsageError(f'{file}: {key} must be a JSON object, as must its params, not {section!r:.50}')
    stage = section.get('stage', 0)
    if key == 'zero_optimization' and (isinstance(stage, bool) or stage not in (0, 1, 2, 3)):
        raise UsageError(f'{file}: stage of {key} must be 0, 1, 2 or 3, not {stage!r:.50}')


def hush() -> None:
    """Nothing that a run does as it should is warned of."""
    logging.getLogger('accelerate.accelerator').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', category=FutureWarning, module=r'torch\.distributed')


def stage_of(config: dict[str, Any]) -> int:
    return int((config.get('zero_optimization') or {}).get('stage', 0))


def share_parameters(model: Any, config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> None:
    """Share weights out one after the other, as stage 3 does, so that no device ever holds them all."""
    import deepspeed

    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    deepspeed.init_distributed()
    deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=dtype)
    for module in model.modules():  # these each device has
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


def spread(needs: Estimate, model: Any, config: dict[str, Any], dtype: torch.dtype, world: int) -> Estimate:
    """What a device holds of weights, gradients and the optimizer's state."""
    stage, shared = stage_of(config), config.get('zero_optimization') or {}
    offloaded = {
        name: (shared.get(f'offload_{name}') or {}).get('device', 'none') != 'none' for name in ('param', 'optimizer')
    }
    width = dtype.itemsize
    weights = sum(p.numel() * (width if p.is_floating_point() else p.element_size()) for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    state = trained * (8 + (MASTER if width < MASTER else 0))
    return replace(
        needs,
        weights=0 if offloaded['param'] else weights // (world if stage == 3 else 1),
        gradients=0 if offloaded['optimizer'] else trained * width // (world if stage >= 2 else 1),
        optimizer=0 if offloaded['optimizer'] else state // (world if stage >= 1 else 1),
    )
