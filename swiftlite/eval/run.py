"""`swiftlite eval`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import swiftlite
from swiftlite.errors import SwiftliteError
from swiftlite.eval.items import EvalSet, Item, read_sets
from swiftlite.eval.record import PartFile, RunFolder
from swiftlite.eval.report import LIKELIHOOD, Plan, answered, print_table, scored_row, summary
from swiftlite.infer.progress import progress

if TYPE_CHECKING:
    from swiftlite.args.eval import EvalArgs

Facts = dict[str, Any]


class Target(Protocol):
    """Who is measured. Each of its iterators gives (row, facts), and {'error': …} for a row that cannot be asked."""

    name: str

    def settings(self) -> Facts: ...

    def answers(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]: ...

    def likelihoods(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]: ...

    def close(self) -> None: ...


def run(args: EvalArgs) -> int:
    """Measure what `args` names. Returns 0, or 1 if no row of a set could be answered; raises SwiftliteError."""
    sets = read_sets(args)
    for each in sets:
        print(f'{each.name}: {len(each.items)} rows, {each.drops.total} dropped', flush=True)
        for line in each.drops.lines():
            print(f'  dropped {line}')
    # few servers tell likelihoods: there, only where they are asked for
    plan = Plan(args.eval_metrics, likelihood=args.eval_url is None)
    plan.check(sets)
    target = _target(args)
    try:
        return _measure(args, sets, plan, target)
    finally:
        target.close()


def _target(args: EvalArgs) -> Target:
    if args.eval_url is not None:
        from swiftlite.eval.remote import UrlTarget

        return UrlTarget(args)
    from swiftlite.eval.local import LocalTarget

    return LocalTarget(args)


def _measure(args: EvalArgs, sets: list[EvalSet], plan: Plan, target: Target) -> int:
    settings = json.loads(json.dumps(target.settings()))
    settings |= {'metrics': sorted(plan.asked), 'data': {each.name: each.digest for each in sets}}
    name = (args.eval_name or target.name).replace('/', '--').lstrip('.') or 'model'
    folder = RunFolder(Path(args.eval_output_dir).expanduser() / name, settings, args.eval_use_cache)
    start, made = time.perf_counter(), 0
    results: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    try:
        for each in sets:
            part = folder.part(each.name)
            try:
                made += _ask(each, plan, target, part)
            except (KeyboardInterrupt, SwiftliteError):
                if part.facts:
                    kept = f'{len(part.facts)} rows of {each.name} are kept: the same command goes on'
                    print(f'\n{kept}', file=sys.stderr)
                raise
            finally:
                part.close()
            rows = [scored_row(i, item, part.facts.get(i, {}), plan) for i, item in enumerate(each.items)]
            files[each.name] = str(part.finish(rows))
            results[each.name] = summary(rows, each)
        report = {
            'swiftlite_version': swiftlite.__version__,
            'name': target.name,
            'results': results,
            'files': files,
            'settings': settings,
            'timing': {'seconds': round(time.perf_counter() - start, 2), 'rows_asked': made},
        }
        path = folder.report(report)
    finally:
        folder.close()
    print_table(results)
    for title, numbers in results.items():
        if numbers.get('without_letter'):
            print(f'{title}: {numbers["without_letter"]} answers name no letter and count as wrong')
        if numbers['failed']:
            lines = Path(files[title]).read_text(encoding='utf-8').split('\n')
            first = next(found for line in lines if line and 'error' in (found := json.loads(line)))
            print(f'{title}: {numbers["failed"]} rows failed, the first one ({first["where"]}): {first["error"]}')
    print(f'report: {path}')
    return 1 if any(numbers['failed'] == numbers['rows'] for numbers in results.values()) else 0


def _ask(data: EvalSet, plan: Plan, target: Target, part: PartFile) -> int:
    """Ask what is not known yet; returns how many rows were asked anything."""
    numbered = list(enumerate(data.items))
    open_rows = [(i, item) for i, item in numbered if 'error' not in part.facts.get(i, {})]
    asked = [(i, item) for i, item in open_rows if answered(item, plan) and 'response' not in part.facts.get(i, {})]
    known = {i for i, facts in part.facts.items() if 'tokens' in facts}
    scored = [(i, item) for i, item in open_rows if set(LIKELIHOOD) & set(plan.of(item)) and i not in known]
    if part.facts:
        print(f'{data.name}: {len(part.facts)} rows are known from an earlier run')
    with progress() as bar:
        for title, rows, ask in (('answering', asked, target.answers), ('scoring', scored, target.likelihoods)):
            if not rows:
                continue
            shown = bar.add_task(f'{title} {data.name}', total=len(rows), speed='')
            failed = {i for i, facts in part.facts.items() if 'error' in facts}
            for index, facts in ask([(i, item) for i, item in rows if i not in failed]):
                part.add(index, facts)
                bar.update(shown, advance=1)
    return len({i for i, _ in [*asked, *scored]})
