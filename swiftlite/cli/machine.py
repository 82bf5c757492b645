"""This machine: processors, memory, disks, and which sizes of models fit."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swiftlite.registry.models import MODELS

GIB = 2**30
BYTES = {'bf16': 2, 'fp32': 4}  # of a weight when a model is run
LORA, FULL = 2.6, 16  # of a weight when it is trained: bf16 and activations; fp32 weight, gradient and AdamW's two
MARGIN, FIXED = 1.1, 1.0  # beside the weights: a share for buffers, GiB for the cache of a few conversations
SIZE = re.compile(r'(?:^|-)(\d+(?:_\d+)?)b(?:-|$)')


def machine() -> dict[str, Any]:
    """Processors, memory and disks in GiB; needs torch."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    return {
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_gib': _gib(memory.total),
        'free_gib': _gib(memory.available),
        'gpus': [_gpu(torch, index) for index in range(torch.cuda.device_count())],
        'cuda': torch.version.cuda,
    }


def folders() -> list[dict[str, Any]]:
    """Where files are read and written: path, free GiB, whether it can be written, models in it."""
    hub = Path(os.environ.get('HF_HUB_CACHE') or Path(os.environ.get('HF_HOME', '~/.cache/huggingface'), 'hub'))
    scope = Path(os.environ.get('MODELSCOPE_CACHE', '~/.cache/modelscope'))
    native = Path(
        os.environ.get('SWIFTLITE_CACHE') or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'swiftlite')
    )
    named = {'work': Path.cwd(), 'Hugging Face': hub, 'ModelScope': scope, 'swiftlite': native}
    found = []
    for name, path in named.items():
        path = path.expanduser()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        models = len(list(path.glob('models--*'))) if name == 'Hugging Face' else None
        found.append(
            {
                'name': name,
                'path': str(path),
                'exists': path.is_dir(),
                'free_gib': _gib(shutil.disk_usage(there).free),
                'writable': os.access(there, os.W_OK),
                'models': models,
            }
        )
    return found


def sizes() -> list[float]:
    """Sizes of the models that go by a name, in billions of weights."""
    found = {float(match[1].replace('_', '.')) for name in MODELS if (match := SIZE.search(name))}
    return sorted(found)


def what_fits(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The largest named size for each way to run or train: {what, devices, largest (in billions, None: none)}."""
    rows = []
    if facts['gpus']:
        memory = min(gpu['memory_gib'] for gpu in facts['gpus'])
        counts = [n for n in (1, 2, 4, 8) if n <= len(facts['gpus'])]
        half = 'bf16' if all(gpu['bf16'] for gpu in facts['gpus']) else 'fp16'
        for count in counts:
            rows.append(_row(f'infer, deploy in {half}', count, BYTES['bf16'], 0.9 * memory * count))
        rows.append(_row(f'sft, LoRA, {half}', 1, LORA, 0.9 * memory))
        rows.append(_row('sft, full, fp32', 1, FULL, 0.9 * memory))
        return rows
    for dtype, size in BYTES.items():
        rows.append(_row(f'infer, deploy in {dtype}', 0, size, facts['free_gib']))
    rows.append(_row('sft, LoRA, fp32', 0, LORA * 2, facts['free_gib']))
    rows.append(_row('sft, full, fp32', 0, FULL, facts['free_gib']))
    return rows


def _row(what: str, devices: int, size: float, room: float) -> dict[str, Any]:
    return {'what': what, 'devices': devices, 'largest': _largest(sizes(), size, room)}


def _largest(billions: Iterable[float], size: float, room: float) -> float | None:
    fitting = [each for each in billions if each * 1e9 * size / GIB * MARGIN + FIXED <= room]
    return max(fitting, default=None)


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    facts = torch.cuda.get_device_properties(index)
    found = {
        'name': facts.name,
        'memory_gib': _gib(facts.total_memory),
        'compute': f'{facts.major}.{facts.minor}',
        'bf16': facts.major >= 8,
    }
    try:
        free, _ = torch.cuda.mem_get_info(index)
        value = torch.ones(64, 64, device=f'cuda:{index}') @ torch.ones(64, 64, device=f'cuda:{index}')
        found |= {'free_gib': _gib(free), 'error': None if float(value[0, 0]) == 64 else 'it multiplies wrongly'}
    except RuntimeError as error:
        found |= {'free_gib': None, 'error': str(error).splitlines()[0]}
    return found


def _gib(count: float) -> float:
    return round(count / GIB, 1)
