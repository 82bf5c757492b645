"""Answers to a whole data set, batched by the engine, in the order of its rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from swiftlite.data.rows import Drops, Row
from swiftlite.data.split import read_split
from swiftlite.engine.errors import RequestError
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.infer.progress import progress
from swiftlite.infer.results import ResultFile, row
from swiftlite.infer.seeds import row_seed
from swiftlite.infer.session import Session

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs

SHOWN = 20  # up to this many rows are printed unless --verbose says otherwise


@dataclass
class Task:
    """A row to answer: the turns before its last answer, which is the label."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    label: str | None
    prompt: list[int]
    response: str = ''
    finished: bool = False


def read_rows(args: InferArgs) -> tuple[list[Row], Drops]:
    """The held-out rows that `args` names, and what was dropped while reading.

    Raises UsageError for data that is not there, SwiftliteError where no row is left.
    """
    split = read_split(args, training=False, answered=False)
    rows, drops = split.held_out, split.held_out_drops
    if args.show_dataset_sample >= 0:
        rows = rows[: args.show_dataset_sample]
    if not rows:
        why = '; '.join(drops.lines()) or 'is there held-out data (--val_dataset, --dataset_test_ratio)?'
        raise SwiftliteError(f'no rows are left to answer: {why}')
    return rows, drops


def make_tasks(args: InferArgs, session: Session, rows: Sequence[Row], drops: Drops) -> list[Task]:
    """The rows encoded; prints what was left out and why. SwiftliteError where no row is left."""
    tasks = []
    for item in rows:
        messages, label = split_answer(item)
        if not messages or messages[-1]['role'] == 'assistant':
            drops.add('there is nothing to answer', item.where)
            continue
        try:
            tasks.append(Task(messages, item.tools, label, session.encode(messages, item.tools)))
        except SwiftliteError as error:
            reason = 'longer than the context' if isinstance(error, RequestError) else str(error)
            drops.add(reason, item.where)
    which = ''
    if args.dataset and not args.val_dataset and not args.load_dataset_config:
        which = ' (what is held out of --dataset; all rows: --val_dataset)'
    print(f'{len(tasks)} rows to answer{which}, {drops.total} dropped')
    for line in drops.lines():
        print(f'  dropped {line}')
    if not tasks:
        raise SwiftliteError(f'no rows are left to answer: {"; ".join(drops.lines())}')
    return tasks


def split_answer(item: Row) -> tuple[list[dict[str, Any]], str | None]:
    """(the turns to answer, the answer that the row gives or None)."""
    *before, last = item.messages
    if last['role'] != 'assistant':
        return item.messages, None
    return before, row([last], '', None)['query']


def answer_dataset(args: InferArgs, session: Session, results: ResultFile, data: tuple[Sequence[Row], Drops]) -> None:
    """Answer every row of `read_rows`; rows are written in their order, as soon as all before them are finished."""
    tasks = make_tasks(args, session, *data)
    verbose = len(tasks) <= SHOWN if args.verbose is None else args.verbose
    written = answered_before(tasks, results)
    start, tokens = time.perf_counter(), 0
    left = range(written, len(tasks))
    with progress() as bar:
        shown = bar.add_task('answering', total=len(tasks), completed=written, speed='')
        seeds = [row_seed(args.seed, index) for index in left]
        for offset, delta in session.answer([tasks[index].prompt for index in left], seeds=seeds):
            task = tasks[left[offset]]
            task.response += delta.text
            tokens += len(delta.token_ids)
            if delta.finish_reason is None:
                continue
            task.finished = True
            bar.update(shown, advance=1, speed=f'{tokens / (time.perf_counter() - start):.0f} tokens/s')
            while written < len(tasks) and tasks[written].finished:
                _finish(tasks[written], results, bar.console if verbose else None)
                written += 1
    seconds = time.perf_counter() - start
    print(f'{len(left)} answers, {tokens} tokens in {seconds:.1f} s ({tokens / seconds:.1f} tokens/s)')
    if results.path is not None:
        print(f'results: {results.path}')


def answered_before(tasks: Sequence[Task], results: ResultFile) -> int:
    """How many rows an earlier run with the same --result_path has answered; UsageError where they are other rows."""
    rows = results.earlier()
    for number, found in enumerate(rows, 1):
        task = tasks[number - 1] if number <= len(tasks) else None
        response = found.get('response') if isinstance(found, dict) else None
        if task is None or found != row(task.messages, response or '', task.label, task.tools):
            raise UsageError(
                f'--result_path, line {number}: this is no answer to row {number} of the data; '
                'give the same data again, or a new file'
            )
    if rows:
        print(f'{len(rows)} rows were answered in an earlier run')
    return len(rows)


def _finish(task: Task, results: ResultFile, console: Console | None) -> None:
    results.write(row(task.messages, task.response, task.label, task.tools))
    if console is not None:
        lines = [f'query:    {row(task.messages, "", None)["query"]}', f'response: {task.response}']
        lines += [f'label:    {task.label}'] if task.label is not None else []
        console.print('\n'.join(lines) + '\n', markup=False, highlight=False, soft_wrap=True)
