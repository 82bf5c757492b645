"""``swiftlite doctor``: what is installed, what is missing, and what would run here."""

import importlib.util
import json
import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from swiftlite.args.doctor import DoctorArgs
from swiftlite.errors import SwiftliteError

PACKAGES = (
    'torch', 'transformers', 'tokenizers', 'safetensors', 'peft', 'accelerate', 'numpy', 'fastapi', 'uvicorn',
    'llguidance', 'triton',
)  # fmt: skip
# extra → what it adds
EXTRAS = {
    'ui': 'the chat page, swiftlite app-ui',
    'hub': 'downloads from ModelScope',
    'plots': 'pictures of the loss, TensorBoard files',
    'fast': 'a faster event loop of the server',
}
VARIABLES = (
    'CUDA_VISIBLE_DEVICES', 'NPROC_PER_NODE', 'NNODES', 'NODE_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'OMP_NUM_THREADS',
    'USE_HF', 'HF_HOME', 'HF_HUB_CACHE', 'HF_ENDPOINT', 'HF_HUB_OFFLINE', 'HF_TOKEN', 'MODELSCOPE_CACHE',
    'MODELSCOPE_API_TOKEN', 'http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'no_proxy', 'SWIFTLITE_CACHE',
    'XDG_CACHE_HOME', 'XDG_STATE_HOME',
)  # fmt: skip
SECRET = re.compile(r'TOKEN|KEY|PASSWORD')
LOGIN = re.compile(r'//[^/@]*@')


def main(args: DoctorArgs) -> int:
    """Print the report. Returns 1 if something that every command needs is missing or does not work."""
    report = collect(args.try_model)
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print('\n'.join(lines(report)))
    return 1 if report['problems'] else 0


def collect(try_model: bool = False) -> dict[str, Any]:
    """The facts behind the report, as plain data; `try_model` lets tiny-chat answer a question."""
    import swiftlite

    report: dict[str, Any] = {
        'swiftlite': swiftlite.__version__,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'packages': {name: _version(name) for name in PACKAGES},
        'extras': {name: _missing(name) for name in EXTRAS},
        'variables': {name: shown(name, os.environ[name]) for name in VARIABLES if name in os.environ},
        'problems': _problems(),
        'warnings': [],
    }
    if report['packages']['torch'] is not None:
        try:
            _add_machine(report, try_model)
        except (ImportError, OSError, RuntimeError) as error:
            report['problems'].append(f'torch is installed, but does not work: {_first(error)}')
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    out = [f'swiftlite {report["swiftlite"]}, Python {report["python"]}, {report["platform"]}', '', 'packages']
    out += [f'  {name:<16}{version or "missing"}' for name, version in report['packages'].items()]
    out += ['', 'extras']
    for name, missing in report['extras'].items():
        lack = f"pip install 'swiftlite[{name}]' ({', '.join(missing)})" if missing else 'yes'
        out.append(f'  {name:<16}{EXTRAS[name]}: {lack}')
    if 'memory_gib' in report:
        out += ['', 'machine']
        out.append(f'  {report["cores"]} cores, {report["memory_gib"]} GiB memory, {report["free_gib"]} GiB free')
        for index, gpu in enumerate(report['gpus']):
            free = f', {gpu["free_gib"]} GiB free' if gpu['free_gib'] is not None else ''
            out.append(f'  GPU {index}: {gpu["name"]}, {gpu["memory_gib"]} GiB{free}, compute {gpu["compute"]}')
        out += [f'  {report["runs"]}']
        out += ['', 'largest named size that fits, roughly']
        out += [f'  {_fit(row)}' for row in report['fits']]
        out += ['', 'folders']
        for folder in report['folders']:
            state = '' if folder['exists'] else ', not there yet'
            state += '' if folder['writable'] else ', cannot be written'
            state += f', {folder["models"]} models' if folder['models'] else ''
            out.append(f'  {folder["name"]:<16}{folder["path"]} ({folder["free_gib"]} GiB free{state})')
    if report['variables']:
        out += ['', 'environment', *(f'  {name}={value}' for name, value in report['variables'].items())]
    if 'tried' in report:
        out += ['', f'tiny-chat answered in {report["tried"]["seconds"]} s: {report["tried"]["answer"]}']
    out += ['', *(f'note: {warning}' for warning in report['warnings'])]
    out += [f'problem: {problem}' for problem in report['problems']] or ['no problems']
    return out


def shown(name: str, value: str) -> str:
    """A variable as it may be read by others: no tokens, no passwords in addresses."""
    if SECRET.search(name.upper()):
        return '(set)' if value else ''
    return LOGIN.sub('//(login)@', value)


def _fit(row: dict[str, Any]) -> str:
    where = {0: 'CPU', 1: '1 GPU'}.get(row['devices'], f'--tensor_parallel_size {row["devices"]}')
    largest = f'{row["largest"]:g}B' if row['largest'] is not None else 'none but tiny-chat'
    return f'{row["what"] + ", " + where:<52}{largest}'


def _add_machine(report: dict[str, Any], try_model: bool) -> None:
    from swiftlite.cli.machine import folders, machine, what_fits

    report |= machine()
    report |= {'folders': folders(), 'fits': what_fits(report)}
    problems, warnings = report['problems'], report['warnings']
    if report['gpus']:
        triton = report['packages']['triton'] is not None
        report['runs'] = 'models run on the GPU' + ('' if triton else ', slowly: triton is missing')
        if not triton:
            warnings.append("the GPU kernels need triton, which comes with torch's CUDA builds")
    else:
        report['runs'] = 'no GPU: models run on the CPU, in fp32 unless --dtype says otherwise'
        if Path('/dev/nvidia0').exists():
            why = 'torch was built without CUDA' if report['cuda'] is None else 'its driver is too old, or it is hidden'
            warnings.append(f'there is an NVIDIA GPU that torch does not see: {why}')
    for index, gpu in enumerate(report['gpus']):
        if gpu['error']:
            problems.append(f'GPU {index} does not work: {gpu["error"]}')
    for folder in report['folders']:
        if not folder['writable']:
            warnings.append(f"'{folder['path']}' cannot be written")
        elif folder['free_gib'] < 1:
            warnings.append(f"'{folder['path']}' has {folder['free_gib']} GiB left")
    if try_model and not problems:
        try:
            report['tried'] = _try_model()
        except (SwiftliteError, OSError, RuntimeError, ImportError) as error:
            problems.append(f'tiny-chat does not run: {_first(error)}')


def _try_model() -> dict[str, Any]:
    """What tiny-chat says, and how long it took to load and to answer."""
    from swiftlite.args.infer import InferArgs
    from swiftlite.infer.session import Session
    from swiftlite.infer.setup import prepare

    start = time.perf_counter()
    args = InferArgs(model_type='tiny-chat', temperature=0.0, max_new_tokens=32, max_num_seqs=1)
    session = Session(prepare(args), args)
    try:
        prompt = session.encode([{'role': 'user', 'content': 'What is 3 + 4?'}])
        answer = ''.join(delta.text for _, delta in session.answer([prompt]))
    finally:
        session.close()
    return {'answer': answer, 'seconds': round(time.perf_counter() - start, 1)}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(extra: str) -> list[Any]:
    """What this installation asks for, or what one of its extras adds."""
    from packaging.requirements import Requirement

    try:
        found = [Requirement(text) for text in metadata.requires('swiftlite') or []]
    except metadata.PackageNotFoundError:  # run from its source without being installed
        found = []
    plain = [each for each in found if each.marker is None or each.marker.evaluate({'extra': ''})]
    if not extra:
        return plain
    return [
        each
        for each in found
        if each.marker is not None and each not in plain and each.marker.evaluate({'extra': extra})
    ]


def _missing(extra: str) -> list[str]:
    """Packages of an extra that are not there."""
    return [each.name for each in _requirements(extra) if _version(each.name) is None]


def _problems() -> list[str]:
    """Requirements of this installation that are missing or outside their bounds."""
    found = []
    for requirement in _requirements(''):
        version = _version(requirement.name)
        if version is None:
            found.append(f'{requirement.name} is missing: pip install "{requirement.name}{requirement.specifier}"')
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f'{requirement.name} is {version}, and {requirement.specifier} is needed')
    if importlib.util.find_spec('swiftlite_kernels') is None:
        found.append('swiftlite_kernels is missing: install swiftlite again')
    return found


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
