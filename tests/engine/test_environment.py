"""What the engine's processes are started with."""

import time
from pathlib import Path

import pytest

from swiftlite.engine.environment import process_environment
from swiftlite.engine.process.child import EngineProcess

OURS = 'pinned_use_cuda_host_register:True'


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, {'PYTORCH_ALLOC_CONF': OURS}),
        ({'PYTORCH_ALLOC_CONF': ''}, {'PYTORCH_ALLOC_CONF': OURS}),
        (
            {'PYTORCH_ALLOC_CONF': 'expandable_segments:True'},
            {'PYTORCH_ALLOC_CONF': f'expandable_segments:True,{OURS}'},
        ),
        (
            {'PYTORCH_CUDA_ALLOC_CONF': 'max_split_size_mb:64', 'PYTORCH_ALLOC_CONF': 'x:1'},
            {'PYTORCH_CUDA_ALLOC_CONF': f'max_split_size_mb:64,{OURS}', 'PYTORCH_ALLOC_CONF': 'x:1'},
        ),
        (
            {'PYTORCH_ALLOC_CONF': 'pinned_use_cuda_host_register:False'},
            {'PYTORCH_ALLOC_CONF': 'pinned_use_cuda_host_register:False'},
        ),
    ],
)
def test_settings_of_ones_own_stay(given, expected, monkeypatch):
    for name in ('PYTORCH_CUDA_ALLOC_CONF', 'PYTORCH_ALLOC_CONF'):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert {name: value for name, value in process_environment().items() if 'ALLOC_CONF' in name} == expected


def test_the_engines_process_has_it(monkeypatch):
    monkeypatch.delenv('PYTORCH_CUDA_ALLOC_CONF', raising=False)
    monkeypatch.setenv('PYTORCH_ALLOC_CONF', 'max_split_size_mb:64')
    engine = EngineProcess()
    try:
        environ = Path(f'/proc/{engine.process.pid}/environ')
        while not (found := environ.read_bytes()):  # it is becoming the new program
            time.sleep(0.01)
        assert f'PYTORCH_ALLOC_CONF=max_split_size_mb:64,{OURS}'.encode() in found.split(b'\0')
    finally:
        engine.kill()
