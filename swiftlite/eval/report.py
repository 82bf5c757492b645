"""From what the model said of each row to rows with scores, a table and a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from swiftlite.errors import UsageError
from swiftlite.eval import metrics
from swiftlite.eval.choice import chosen_letter
from swiftlite.eval.items import EvalSet, Item
from swiftlite.infer.results import row

CHOICE = ('accuracy',)
TEXT = ('exact_match', 'rouge_l', 'bleu_4')
LIKELIHOOD = ('perplexity', 'token_accuracy')
METRICS = (*CHOICE, *TEXT, *LIKELIHOOD)
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """Which metrics a row of a set takes part in."""

    asked: Collection[str]  # --eval_metrics; none: all that fit the row, likelihoods only where `likelihood`
    likelihood: bool

    def of(self, item: Item) -> tuple[str, ...]:
        """The metrics of a row, in the order of the report."""
        if self.asked:
            fit = (CHOICE if item.choices else ()) + (TEXT if item.messages else ()) + LIKELIHOOD
            return tuple(name for name in fit if name in self.asked)
        said = (CHOICE if item.choices else TEXT) if item.messages else ()
        return said + (LIKELIHOOD if self.likelihood or not said else ())

    def check(self, sets: Sequence[EvalSet]) -> None:
        """UsageError for a metric that no row of any set has."""
        had = {name for each in sets for item in each.items for name in self.of(item)}
        for name in self.asked:
            if name not in had:
                lack = 'is a multiple-choice question' if name in CHOICE else 'asks anything'
                raise UsageError(f'--eval_metrics {name}: no row of the data {lack}')


def answered(item: Item, plan: Plan) -> bool:
    """Whether a row needs the model's answer."""
    return any(name in (*CHOICE, *TEXT) for name in plan.of(item))


def scored_row(index: int, item: Item, facts: Facts, plan: Plan) -> dict[str, Any]:
    """The line of a row: where it stands, query, history, system, label, what the model said, and its scores."""
    found: dict[str, Any] = {'index': index, 'where': item.where}
    if item.messages:
        found |= row(item.messages, facts.get('response', ''), item.label, item.tools)
    else:
        found |= {'query': None, 'response': None, 'label': item.label}
    found |= {name: facts[name] for name in ('finish_reason', 'error') if facts.get(name) is not None}
    if 'response' in facts:
        found |= _said(facts['response'], item, plan.of(item))
    if facts.get('tokens'):
        found |= {name: facts[name] for name in ('logprob', 'tokens', 'hits')}
        found['perplexity'] = metrics.perplexity(facts['logprob'], facts['tokens'])
    return found


def _said(response: str, item: Item, names: Collection[str]) -> dict[str, Any]:
    label = item.label or ''
    scores: dict[str, Any] = {}
    if 'accuracy' in names:
        scores['choice'] = chosen_letter(response, item.choices)
        scores['accuracy'] = 100.0 if scores['choice'] == label else 0.0
    if 'exact_match' in names:
        scores['exact_match'] = metrics.exact_match(response, label)
    if 'rouge_l' in names:
        scores['rouge_l'] = metrics.rouge_l(response, label)
    if 'bleu_4' in names:
        scores['bleu_4'] = metrics.sentence_bleu_4(response, label)
    return scores


def summary(rows: Sequence[Facts], data: EvalSet) -> dict[str, Any]:
    """The numbers of a set, means over the rows that have them; a row that failed in one thing keeps what else it has.

    bleu_4 is that of all answers together, perplexity that of all tokens together.
    """
    found: dict[str, Any] = {
        'rows': len(rows),
        'failed': sum('error' in each for each in rows),
        'dropped': data.drops.total,
    }
    for name in (*CHOICE, 'exact_match', 'rouge_l'):
        values = [each[name] for each in rows if name in each]
        if values:
            found[name] = round(sum(values) / len(values), 2)
    pairs = [(each['response'], each['label'] or '') for each in rows if 'bleu_4' in each]
    if pairs:
        found['bleu_4'] = round(metrics.bleu_4([a for a, _ in pairs], [b for _, b in pairs]), 2)
    tokens = sum(each.get('tokens', 0) for each in rows)
    if tokens:
        value = metrics.perplexity(sum(each.get('logprob', 0.0) for each in rows), tokens)
        found['perplexity'] = round(value, 4) if value is not None else None
        found['token_accuracy'] = round(100 * sum(each.get('hits', 0) for each in rows) / tokens, 2)
        found['tokens'] = tokens
    without = sum(each.get('choice', '') is None for each in rows)
    if without:
        found['without_letter'] = without
    return found


def print_table(sets: Mapping[str, Facts]) -> None:
    """One line a set, one column a number that any set has."""
    order = ('rows', 'failed', 'dropped', *METRICS)
    always = ('rows', 'failed', *(name for name in METRICS if any(name in each for each in sets.values())))
    columns = [name for name in order if any(each.get(name) for each in sets.values()) or name in always]
    table = Table('data', box=None, pad_edge=False, header_style='')
    for name in columns:
        table.add_column(name, justify='right')
    for name, each in sets.items():
        table.add_row(name, *(_shown(each.get(column)) for column in columns))
    Console(width=max(80, 24 + 16 * len(columns))).print(table, markup=False, highlight=False)


def _shown(value: Any) -> str:
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.2f}'
