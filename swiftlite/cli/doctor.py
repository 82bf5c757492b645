"""``swiftlite doctor``: what is installed, and what would run here."""

import importlib.util
import json
import os
import platform
from importlib import metadata
from typing import Any

from swiftlite.args.doctor import DoctorArgs

PACKAGES = ('torch', 'transformers', 'tokenizers', 'safetensors', 'peft', 'accelerate', 'numpy', 'fastapi', 'uvicorn')
EXTRAS = {
    'triton': 'GPU kernels',
    'matplotlib': "pictures of the loss; pip install 'swiftlite[plots]'",
    'tensorboard': "training logs; pip install 'swiftlite[plots]'",
    'modelscope_hub': "downloads from ModelScope; pip install 'swiftlite[hub]'",
}
GIB = 2**30


def main(args: DoctorArgs) -> int:
    """Print the report. Returns 1 if a package that every command needs is missing or does not fit."""
    report = collect()
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        for line in lines(report):
            print(line)
    return 1 if report['problems'] else 0


def collect() -> dict[str, Any]:
    """The facts behind the report, as plain data."""
    import swiftlite

    versions = {name: _version(name) for name in PACKAGES}
    report: dict[str, Any] = {
        'swiftlite': swiftlite.__version__,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'packages': versions,
        'extras': {name: importlib.util.find_spec(name) is not None for name in EXTRAS},
        'problems': _problems(),
    }
    if versions['torch'] is not None:
        report |= _machine()
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    out = [f'swiftlite {report["swiftlite"]}, Python {report["python"]}, {report["platform"]}', '']
    out += [f'  {name:<16}{version or "missing"}' for name, version in report['packages'].items()]
    out += [''] + [
        f'  {name:<16}{"yes" if there else "no":<5}{EXTRAS[name]}' for name, there in report['extras'].items()
    ]
    if 'memory_gib' in report:
        out += ['', f'  {report["cores"]} cores, {report["memory_gib"]} GiB memory, {report["free_gib"]} GiB free']
        out += [f'  GPU {i}: {gpu["name"]}, {gpu["memory_gib"]} GiB' for i, gpu in enumerate(report['gpus'])]
        out += [f'  {report["runs"]}']
    out += (
        ['', *(f'problem: {problem}' for problem in report['problems'])] if report['problems'] else ['', 'no problems']
    )
    return out


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _problems() -> list[str]:
    """Requirements of this installation that are missing or outside their bounds."""
    from packaging.requirements import Requirement

    found = []
    for text in metadata.requires('swiftlite') or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({'extra': ''}):
            continue
        version = _version(requirement.name)
        if version is None:
            found.append(f'{requirement.name} is missing: pip install "{requirement.name}{requirement.specifier}"')
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f'{requirement.name} is {version}, and {requirement.specifier} is needed')
    return found


def _machine() -> dict[str, Any]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    gpus = [
        {
            'name': torch.cuda.get_device_name(i),
            'memory_gib': round(torch.cuda.get_device_properties(i).total_memory / GIB, 1),
        }
        for i in range(torch.cuda.device_count())
    ]
    if gpus:
        triton = importlib.util.find_spec('triton') is not None
        runs = 'models run on the GPU' + ('' if triton else ', slowly: triton is missing')
    else:
        runs = 'no GPU: models run on the CPU, in fp32 unless --dtype says otherwise'
    return {
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_gib': round(memory.total / GIB, 1),
        'free_gib': round(memory.available / GIB, 1),
        'gpus': gpus,
        'cuda': torch.version.cuda,
        'runs': runs,
    }
