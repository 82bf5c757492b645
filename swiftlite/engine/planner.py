"""Writes a step down as a plan: who computes what, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .plan import AdapterLoad, PromptRow, SlotStart, StepPlan
from .sequence import Sequence
from .shared_prefix import PrefixFinder

Row = tuple[Sequence, int, int]  # its tokens [start, start + count)


@dataclass
class Step:
    """A plan and the sequences behind its rows."""

    plan: StepPlan
    rows: list[Sequence]


class Planner:
    """Makes StepPlans; `step` is the number of the last one."""

    def __init__(self, vocab_size: int, prefixes: PrefixFinder | None):
        self.vocab_size = vocab_size
        self.step = 0
        self._prefixes, self._starts = prefixes, 0

    def make(self, rows: list[Row], new: list[SlotStart], loads: list[AdapterLoad]) -> Step:
        """The step of these rows; sequences that get a token in it have it pending from now on."""
        self._starts += len(new)
        shared = self._order(rows)
        blocks: list[tuple[int, int, list[int]]] = []
        num_logprobs = -1
        sampled: list[int] = []
        prompt_rows: list[PromptRow] = []
        masked: list[int] = []
        for i, (seq, start, count) in enumerate(rows):
            if len(seq.blocks) > seq.sent_blocks:
                blocks.append((seq.slot, seq.sent_blocks, seq.blocks[seq.sent_blocks :]))
                seq.sent_blocks = len(seq.blocks)
            ends = start + count == len(seq.tokens) + seq.pending
            if ends:
                sampled.append(i)
                seq.pending += 1
            if seq.is_plain:
                continue
            if ends:
                if seq.params.logprobs is not None:
                    num_logprobs = max(num_logprobs, self._count(seq.params.logprobs))
                if seq.constraint is not None:
                    masked.append(i)
            last = min(start + count, seq.prompt_len - 1)
            if seq.wants_prompt and last > start:
                assert seq.params.prompt_logprobs is not None
                prompt_rows.append(PromptRow(i, start + 1, last - start, self._count(seq.params.prompt_logprobs)))
        self.step += 1
        sample = np.zeros(len(rows), dtype=bool)
        sample[sampled] = True
        plan = StepPlan(
            self.step,
            np.asarray([r[0].slot for r in rows], dtype=np.int32),
            np.asarray([r[1] for r in rows], dtype=np.int32),
            np.asarray([r[2] for r in rows], dtype=np.int32),
            sample,
            new,
            blocks,
            loads,
            num_logprobs,
            shared,
            prompt_rows,
        )
        if masked:
            plan.masked = np.asarray(masked, dtype=np.int32)
            plan.masks = np.stack([rows[i][0].constraint.mask for i in masked])  # type: ignore[union-attr]
        return Step(plan, [r[0] for r in rows])

    def _order(self, rows: list[Row]) -> tuple[int, int, int]:
        """One run of rows an adapter, the base's first, and in it those with a common prefix, if all rows decode.

        Returns StepPlan.shared.
        """
        found = None
        if self._prefixes is not None and len(rows) > 1 and all(count == 1 for _, _, count in rows):
            found = self._prefixes.find((seq for seq, _, _ in rows), self._starts)
        if found is None:
            rows.sort(key=lambda r: r[0].adapter)
            return 0, 0, 0
        rows.sort(key=lambda r: (r[0].adapter, r[0].slot not in found.slots))
        first = next(i for i, (seq, _, _) in enumerate(rows) if seq.slot in found.slots)
        return first, first + len(found.slots), found.tokens

    def _count(self, asked: int) -> int:
        return self.vocab_size if asked == -1 else min(asked, self.vocab_size)
