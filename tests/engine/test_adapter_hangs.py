"""A disk that hangs costs the adapters on it, not those on others."""

import subprocess
import sys
import threading
from queue import Empty, Queue

import pytest

from swiftlite.engine.adapters import reader as adapter_reader
from swiftlite.engine.adapters.host import HostAdapter
from swiftlite.engine.adapters.reader import READERS, AdapterReader


class Disk:
    """A format that reads nothing, and hangs where a path says so until `answers` is set."""

    def __init__(self):
        self.answers, self.reading = threading.Event(), []

    def read(self, path):
        self.reading.append(path)
        if 'hung' in path:
            assert self.answers.wait(30)
        return HostAdapter(4, [], [], {})


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(adapter_reader, 'adapter_state', lambda path: ())
    for name, seconds in (('LOOK', 0.02), ('SLOW', 0.1), ('LINGER', 0.1)):
        monkeypatch.setattr(adapter_reader, name, seconds)
    disk = Disk()
    yield disk
    disk.answers.set()


def start(reader, told, *paths):
    for path in paths:
        reader.start(len(told.uids), path, None, told.put)
        told.uids.append(path)


@pytest.fixture
def told():
    queue = Queue()
    queue.uids = []
    return queue


def test_others_are_read_while_some_hang(disk, told):
    """As many as there are threads hang; what they read is there when the disk answers after all."""
    reader = AdapterReader(disk, None)
    hung = [f'hung-{i}' for i in range(2 * READERS)]
    start(reader, told, *hung, 'a', 'b')
    found = {told.uids[told.get(timeout=20).uid] for _ in range(2)}
    assert found == {'a', 'b'}
    disk.answers.set()
    assert {told.uids[told.get(timeout=20).uid] for _ in hung} == set(hung)
    assert len(reader.copies) == len(hung) + 2


def test_what_hangs_is_given_up_once(disk, told, monkeypatch):
    """It is told once, read once, and what comes of it in the end is thrown away."""
    monkeypatch.setattr(adapter_reader, 'GIVE_UP', 0.2)
    reader = AdapterReader(disk, None)
    start(reader, told, 'hung')
    read = told.get(timeout=20)
    assert read.uid == 0 and read.error == 'hung has not been read within 300 s: does its disk answer?'
    start(reader, told, 'hung', 'a')
    again = {told.uids[read.uid]: read.error for read in (told.get(timeout=20), told.get(timeout=20))}
    assert again['a'] is None and 'does its disk answer' in again['hung']
    assert disk.reading.count('hung') == 1
    disk.answers.set()
    while reader._hung:
        threading.Event().wait(0.01)
    assert list(reader.copies) == [2]
    with pytest.raises(Empty):
        told.get_nowait()
    start(reader, told, 'hung')  # the disk is well again
    assert told.get(timeout=20).error is None


def test_no_more_threads_than_needed(disk, told):
    reader = AdapterReader(disk, None)
    start(reader, told, *(f'{i}' for i in range(50)))
    for _ in range(50):
        told.get(timeout=20)
        assert reader._threads <= READERS


def test_the_interpreter_ends_while_adapters_are_read():
    script = """
import time, torch
from swiftlite.engine.adapters import reader as adapter_reader

class Format:
    def read(self, path):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            torch.ones(400, 400) @ torch.ones(400, 400)
        raise OSError('gone')

adapter_reader.adapter_state = lambda path: ()
reader = adapter_reader.AdapterReader(Format(), None)
for uid in range(40):
    reader.start(uid, str(uid), None, lambda read: None)
time.sleep(0.2)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
