"""Runs every plan on every rank: rank 0 here, the others in processes of their own."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe, connection
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from ...checkpoint.adapter import AdapterState
from ...errors import SwiftliteError
from ...layers.parallel import TPGroup, shard_size
from ..adapters.reader import AdapterRead
from ..config import EngineConfig, ModelConfig
from ..environment import process_environment
from ..errors import EngineDeadError
from ..plan import StepPlan, StepResult
from .model_runner import ModelRunner, StepFuture

START_TIMEOUT = 600.0  # seconds for a rank to load
COLLECTIVE_TIMEOUT = 120.0  # seconds a rank waits for another within a step


@dataclass(frozen=True)
class RankSetup:
    """What a worker process needs to join."""

    config: EngineConfig
    model: ModelConfig
    rank: int
    rendezvous: str  # a file every rank can reach


def join(setup: RankSetup) -> TPGroup:
    """Enter the process group: gloo on a CPU, NCCL on GPUs."""
    gpu = setup.model.device.startswith('cuda')
    if gpu:
        torch.cuda.set_device(setup.rank)
    dist.init_process_group(
        'nccl' if gpu else 'gloo',
        init_method=f'file://{setup.rendezvous}',
        rank=setup.rank,
        world_size=setup.config.tensor_parallel_size,
        timeout=datetime.timedelta(seconds=COLLECTIVE_TIMEOUT),
    )
    return TPGroup(setup.rank, setup.config.tensor_parallel_size)


class Worker:
    """Another rank's process and the pipe to it."""

    def __init__(self, setup: RankSetup):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'swiftlite.engine.runner.worker', str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=process_environment(),
        )
        theirs.close()
        self.rank = setup.rank
        self.conn = Connection(ours.detach())
        self.conn.send(setup)

    def ask(self, *message: Any) -> Any:
        self.send(*message)
        return self.reply()

    def send(self, *message: Any) -> None:
        try:
            self.conn.send(message)
        except OSError:
            raise self._gone() from None

    def reply(self) -> Any:
        """Wait for the answer; SwiftliteError if the rank reports one, EngineDeadError if it is gone."""
        try:
            if not self.conn.poll(START_TIMEOUT):
                raise EngineDeadError(f'Tensor-parallel rank {self.rank} gave no answer in {START_TIMEOUT:.0f} s.')
            kind, value = self.conn.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if kind == 'error':
            raise SwiftliteError(value)
        return value

    def _gone(self) -> EngineDeadError:
        return EngineDeadError(
            f'Tensor-parallel rank {self.rank} ended unexpectedly (exit status {self.process.poll()}).'
        )


def _agreed(reads: list[AdapterRead]) -> AdapterRead:
    """What the ranks say together: the first one's problem, and no two states of the files."""
    bad = next((read for read in reads if read.error is not None), None)
    if bad is None and any(read.state != reads[0].state for read in reads):
        bad = replace(reads[0], error='The adapter was changed while it was read; load it again.')
    return bad or reads[0]


class SharedFuture:
    """Rank 0's future, whose result counts only if all ranks are there: a sum that was broken off is no number."""

    def __init__(self, future: StepFuture, check: Callable[[], None]):
        self._future, self._check = future, check

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> StepResult:
        found = self._future.result()
        self._check()
        return found


class Executor:
    """All ranks as one: `submit` returns rank 0's future."""

    def __init__(self, config: EngineConfig, model: ModelConfig):
        self.config, self.model = config, model
        self.workers: list[Worker] = []
        self._dead: str | None = None
        self._closing = False
        self._leaving = threading.Lock()
        self._folder: str | None = None
        self._reads: dict[int, list[AdapterRead]] = {}  # uid → from the ranks that have come to an end
        self._reports, self._finished = Pipe(duplex=False)
        tp = TPGroup()
        try:
            if config.tensor_parallel_size > 1:
                tp = self._start_workers()
            self.runner = ModelRunner(config, model, tp)
            for worker in self.workers:
                worker.reply()  # loaded
            blocks = min([self.runner.fit_blocks()] + [w.ask('fit_blocks') for w in self.workers])
            for worker in self.workers:
                worker.send('allocate_cache', blocks)
            self.runner.allocate_cache(blocks)
            self.runner.capture()
            for worker in self.workers:
                worker.reply()
        except BaseException:
            self.shutdown()
            raise
        self.num_blocks = blocks
        if self.workers:
            threading.Thread(target=self._watch, daemon=True, name='rank-watch').start()

    def submit(self, plan: StepPlan) -> StepFuture:
        """Queue a step on all ranks."""
        self._check()
        for worker in self.workers:
            worker.send('submit', plan)
        try:
            future = self.runner.submit(plan)
        except RuntimeError as error:
            self._check(wait=5.0)
            raise error
        return SharedFuture(future, self._check) if self.workers else future

    def read_adapter(self, uid: int, path: str, known: AdapterState | None) -> None:
        """Start to read an adapter on every rank, beside the steps (AdapterReader.start)."""
        assert self.runner.lora is not None
        self._reads[uid] = []
        self.runner.lora.reader.start(uid, path, known, self._finished.send)
        for worker in self.workers:
            worker.send('read_adapter', uid, path, known)

    def adapters_read(self, wait: float) -> list[AdapterRead]:
        """What all ranks have come to an end with; waits up to so many seconds if there is nothing new."""
        self._check()
        workers = {worker.conn: worker for worker in self.workers}
        found = []
        while ready := connection.wait([self._reports, *workers], wait):
            for conn in ready:
                read: AdapterRead = self._reports.recv() if conn is self._reports else workers[conn].reply()  # type: ignore[index]
                reads = self._reads[read.uid]
                reads.append(read)
                if len(reads) > len(self.workers):
                    found.append(_agreed(self._reads.pop(read.uid)))
            wait = 0.0
        return found

    def forget_adapter(self, uid: int, copy_only: bool) -> None:
        """Give up an adapter, or its copy in host memory; plans that were submitted before are not affected."""
        assert self.runner.lora is not None
        self.runner.lora.forget(uid, copy_only)
        for worker in self.workers:
            worker.send('forget_adapter', uid, copy_only)

    def shutdown(self) -> None:
        """End the other ranks; safe to call twice."""
        self._closing = True
        for worker in self.workers:
            worker.conn.close()
        if hasattr(self, 'runner'):
            self.runner.close()
        for worker in self.workers:
            try:
                worker.process.wait(5)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        if self.workers:
            self._leave()
        self.workers = []
        self._finished.close()
        self._reports.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start_workers(self) -> TPGroup:
        size = self.config.tensor_parallel_size
        shard_size(self.model.decoder.num_heads, TPGroup(size=size), 'attention heads')  # known before ranks start
        if self.model.device.startswith('cuda') and torch.cuda.device_count() < size:
            raise SwiftliteError(
                f'tensor_parallel_size {size} needs {size} GPUs, but {torch.cuda.device_count()} are visible.'
            )
        if dist.is_initialized():
            raise SwiftliteError(
                'torch.distributed is already initialised in this process; start the engine in a process of its own.'
            )
        if not self.model.device.startswith('cuda'):
            os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
        self._folder = tempfile.mkdtemp(prefix='swiftlite-tp-')
        setups = [
            RankSetup(self.config, self.model, rank, os.path.join(self._folder, 'rendezvous')) for rank in range(size)
        ]
        self.workers = [Worker(setup) for setup in setups[1:]]
        return join(setups[0])

    def _watch(self) -> None:
        """A rank that dies must end in an error here, not in a collective that never returns."""
        for worker in self.workers:
            threading.Thread(target=self._watch_one, args=(worker,), daemon=True).start()

    def _watch_one(self, worker: Worker) -> None:
        status = worker.process.wait()
        if self._closing:
            return
        self._dead = f'Tensor-parallel rank {worker.rank} ended unexpectedly (exit status {status}).'
        if self.model.device.startswith('cuda'):
            self._leave()

    def _leave(self) -> None:
        """Out of the process group: NCCL's kernels end, but it waits until no captured step is left."""
        with self._leaving:
            if not dist.is_initialized():
                return
            if self.model.device.startswith('cuda'):
                dist.distributed_c10d._abort_process_group()  # unlike its destruction, needs no other rank
            else:
                dist.destroy_process_group()

    def _check(self, wait: float = 0.0) -> None:
        for worker in self.workers:
            if wait and self._dead is None:
                try:
                    worker.process.wait(wait)
                except subprocess.TimeoutExpired:
                    continue
                self._dead = (
                    f'Tensor-parallel rank {worker.rank} ended unexpectedly (exit status {worker.process.returncode}).'
                )
        if self._dead is not None:
            raise EngineDeadError(self._dead)
