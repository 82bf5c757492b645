"""Work shared by forked processes, which inherit what they need instead of receiving it."""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

T = TypeVar('T')


def usable_workers(most: int) -> int:
    """Processors this process may use, at most `most`; 1 where processes cannot be forked."""
    if 'fork' not in multiprocessing.get_all_start_methods():
        return 1
    return max(1, min(most, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1))


def forked(jobs: Sequence[Callable[[Callable[[int], None]], T]], progress: Callable[[int], None]) -> list[T]:
    """The results of all jobs in their order, each run in a process of its own.

    A job is called with a function that reports progress; reports arrive at `progress` in this process. Jobs must not
    touch the GPU.

    Raises:
        RuntimeError: a process ended without a result; whatever it raised is on stderr.
    """
    context = multiprocessing.get_context('fork')
    ends: dict[Any, int] = {}
    processes = []
    for index, job in enumerate(jobs):
        receiver, sender = context.Pipe(duplex=False)
        processes.append(context.Process(target=_run, args=(job, sender), daemon=True))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # threads of this process hold nothing the jobs need
            processes[-1].start()
        sender.close()
        ends[receiver] = index
    results: dict[int, T] = {}
    try:
        while ends:
            for end in wait(list(ends)):
                try:
                    kind, value = cast(Connection, end).recv()
                except EOFError:
                    if ends[end] not in results:
                        raise RuntimeError(f'process {ends[end]} of {len(jobs)} ended without a result') from None
                    del ends[end]
                    continue
                if kind == 'done':
                    progress(value)
                else:
                    results[ends[end]] = value
    finally:
        for process in processes:
            if ends:
                process.terminate()
            process.join()
    return [results[index] for index in range(len(jobs))]


def _run(job: Callable[[Callable[[int], None]], Any], sender: Connection) -> None:
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    sender.send(('result', job(lambda done: sender.send(('done', done)))))
    sender.close()
