"""The Triton kernels on a CPU: this folder's tests once more in a process with TRITON_INTERPRET=1."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def installed(package: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version(package).split('.')[:2])
    except PackageNotFoundError:
        return ()


@pytest.mark.skipif(os.environ.get('TRITON_INTERPRET') == '1', reason='this is that process')
def test_kernels_run_interpreted():
    if not installed('triton'):
        pytest.skip('triton is not installed, so there are no kernels to interpret')
    if installed('triton') <= (3, 6) and installed('numpy') >= (2, 4):
        pytest.skip('the interpreter of triton 3.6 fails on run-time loop bounds with numpy 2.4 or newer')
    environment = dict(os.environ, TRITON_INTERPRET='1', CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(HERE)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], timeout=900)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert ' passed' in run.stdout
