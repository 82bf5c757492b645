"""Answers and likelihoods from an engine in this process."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.eval.calls import as_text
from swiftlite.eval.items import Item
from swiftlite.infer.seeds import row_seed
from swiftlite.infer.session import Session, sampling
from swiftlite.infer.setup import prepare
from swiftlite.template import IGNORE

if TYPE_CHECKING:
    from swiftlite.args.eval import EvalArgs

Facts = dict[str, Any]


class LocalTarget:
    """The model and adapter that `args` names; its weights are read when the first row is asked."""

    def __init__(self, args: EvalArgs) -> None:
        self._args = args
        self._setup = prepare(args)
        if len(self._setup.adapters) > 1:
            raise UsageError(f'one adapter is measured at a time, not {" and ".join(self._setup.adapters)}: give one')
        self._session: Session | None = None
        self.name = self._setup.source.name

    def settings(self) -> Facts:
        """What the answers depend on beside the data."""
        setup = self._setup
        return {
            'model': setup.config.model,
            'model_files': _files(setup.config.model),
            'adapter': {path: _files(path) for path in setup.adapters.values()},
            'dtype': setup.config.dtype,
            'max_model_len': setup.config.max_model_len,
            'template': setup.template_type,
            'template_options': {name: str(value) for name, value in setup.template_options.items()},
            'sampling': sampling(self._args, setup.defaults),
            'max_new_tokens': self._args.max_new_tokens,
            'seed': self._args.seed,
        }

    def answers(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]:
        """(row, its response or why there is none), in the order in which they finish."""
        asked: list[tuple[int, list[int]]] = []
        for index, item in items:
            try:
                asked.append((index, self.session.encode(item.messages, item.tools)))
            except SwiftliteError as error:
                yield index, {'error': str(error)}
        texts = [''] * len(asked)
        seeds = [row_seed(self._args.seed, index) for index, _ in asked]
        prompts = [prompt for _, prompt in asked]
        by_index = dict(items)
        for place, delta in self.session.answer(prompts, seeds=seeds, at_once=self._args.eval_batch_size):
            texts[place] += delta.text
            if delta.finish_reason is not None:
                index, text = asked[place][0], texts[place]
                if by_index[index].tools:
                    text = as_text(*self.session.template.parse_tool_calls(text))
                yield index, {'response': text, 'finish_reason': delta.finish_reason}

    def likelihoods(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]:
        """(row, log-probability of its answers' tokens, their number, how many of them are the likeliest).

        The tokens are those that carry the loss when the row is trained on: every answer and its end.
        """
        asked: list[tuple[int, list[int], list[int]]] = []
        for index, item in items:
            try:
                row = self.session.template.encode_training(item.whole, tools=item.tools)
                self.session.check_length(row.input_ids)
                asked.append((index, row.input_ids, row.labels))
            except SwiftliteError as error:
                yield index, {'error': str(error)}
        prompts = [ids for _, ids, _ in asked]
        for place, scores in self.session.score(prompts, self._args.eval_batch_size):
            index, _, labels = asked[place]
            counted = [score for score, label in zip(scores, labels[1:], strict=True) if label != IGNORE]
            yield (
                index,
                {
                    'logprob': sum(score.logprob for score in counted),
                    'tokens': len(counted),
                    'hits': sum(score.rank == 1 for score in counted),
                },
            )

    @property
    def session(self) -> Session:
        if self._session is None:
            print(f'Loading {self.name} from {self._setup.config.model}', file=sys.stderr, flush=True)
            self._session = Session(self._setup, self._args)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _files(folder: str) -> str:
    """The names, sizes and times of the files in a folder, in 16 hex digits."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
