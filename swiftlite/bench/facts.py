"""What a figure depends on beside the engine: machine, versions, commit, command."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__

PACKAGES = ('torch', 'triton', 'transformers')


def facts() -> dict[str, Any]:
    """Machine, versions and commit of this run."""
    found: dict[str, Any] = {'hardware': hardware(), 'versions': versions()}
    if name := commit():
        found['commit'] = name
    return found


def versions() -> dict[str, str]:
    """Name → version of swiftlite, Python and the packages that matter for speed and are installed."""
    found = {'swiftlite': __version__, 'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the code that runs, with '+' where it was changed since; None where it is in no git checkout."""
    folder = Path(__file__).parent
    tracked = _git(folder, 'ls-files', '--error-unmatch', Path(__file__).name)
    name = _git(folder, 'rev-parse', '--short', 'HEAD') if tracked else None
    if not name:
        return None
    changed = _git(folder, 'status', '--porcelain', '--untracked-files=no', '--', str(folder.parent))
    return f'{name}+' if changed else name


def hardware() -> dict[str, Any]:
    """Processor, threads where torch is loaded, and NVIDIA GPUs with the driver's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    found: dict[str, Any] = {'cpu': processor(), 'cores': cores}
    torch = sys.modules.get('torch')
    if torch is not None:
        found['threads'] = torch.get_num_threads()
    if gpus := _gpus(torch):
        found |= {'gpus': gpus, 'driver': _driver()}
    return found


def processor() -> str:
    """Name of the processor."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        text = ''
    match = re.search(r'^model name\s*:\s*(.+)$', text, re.M)
    return match[1] if match else platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """The GPU's name, or the processor with its thread count."""
    import torch

    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'


def seconds_since_start() -> float:
    """Seconds since this process was created, imports and all."""
    import time

    import psutil

    return time.time() - psutil.Process().create_time()


def _gpus(torch: Any) -> list[str]:
    """Names from torch, else from the driver's files."""
    if torch is not None and torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    files = sorted(Path('/proc/driver/nvidia/gpus').glob('*/information'))
    texts = (file.read_text(encoding='utf-8') for file in files)
    return [match[1] for text in texts if (match := re.search(r'^Model:\s*(.+)$', text, re.M))]


def _driver() -> str | None:
    try:
        match = re.search(r'\s(\d+\.\d+(?:\.\d+)?)\s', Path('/proc/driver/nvidia/version').read_text(encoding='utf-8'))
    except OSError:
        return None
    return match[1] if match else None


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(['git', '-C', str(folder), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
