"""Decides what the next step computes, before the last step's tokens are known.

Continuous batching (Orca, OSDI 2022) with chunked prefill (Sarathi, arXiv 2308.16369): running sequences first, then
waiting ones in order of arrival, until the step's token budget is spent. When blocks run out the youngest running
sequence gives its own up and is computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from .adapters import AdapterTable
from .block_manager import BlockManager
from .constraint import take
from .outputs import SequenceOutput
from .plan import AdapterLoad, PromptRow, SlotStart, StepPlan, StepResult
from .sequence import Sequence, Status
from .shared_prefix import PrefixFinder


@dataclass
class Step:
    """A plan and the sequences behind its rows."""

    plan: StepPlan
    rows: list[Sequence]


class Scheduler:
    """Waiting and running sequences of one engine."""

    def __init__(
        self,
        blocks: BlockManager,
        adapters: AdapterTable,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        vocab_size: int,
        prefixes: PrefixFinder | None = None,
    ):
        self.blocks, self.adapters, self.vocab_size = blocks, adapters, vocab_size
        self.max_tokens = max_num_batched_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._slots = list(range(max_num_seqs - 1, -1, -1))
        self._step = 0
        self._prefixes, self._starts = prefixes, 0
        self.num_preemptions = 0
        self.dropped_adapters: list[int] = []  # uids that workers may forget

    def enter(self, seq: Sequence) -> None:
        """Take a sequence on, so that `finish` ends it; it runs after `add`."""
        if seq.adapter:
            self.adapters.reserve(seq.adapter)

    def add(self, seq: Sequence) -> None:
        seq.status = Status.WAITING
        self.waiting.append(seq)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def schedule(self) -> Step | None:
        """The next step, or None when nothing can be computed before a result arrives."""
        budget = self.max_tokens
        rows: list[tuple[Sequence, int, int]] = []
        preempted = False
        for seq in list(self.running):
            if budget == 0:
                break
            if seq.status is not Status.RUNNING or (
                seq.pending and (seq.total >= seq.max_len or seq.constraint is not None)
            ):
                continue  # preempted just now, about to end by length, or waiting for the token its grammar needs
            count = min(seq.total - seq.computed, budget)
            while not self.blocks.grow(seq, seq.computed + count):
                victim = self.running[-1]
                self._preempt(victim)
                preempted = True
                if victim is seq:
                    break
            if seq.status is not Status.RUNNING:
                break
            rows.append(self._row(seq, count))
            budget -= count
        new: list[SlotStart] = []
        loads: list[AdapterLoad] = []
        while self.waiting and self._slots and budget > 0 and not preempted:
            seq = self.waiting[0]
            if seq.pending:  # preempted with a token in flight
                break
            started = self._start(seq)
            if started is None:
                break
            self.waiting.popleft()
            loads.extend(started)
            new.append(
                SlotStart(
                    seq.slot,
                    np.asarray(seq.tokens, dtype=np.int32),
                    seq.prompt_len,
                    seq.params,
                    seq.seed,
                    tuple(seq.stop_ids),
                    seq.adapter,
                )
            )
            count = min(seq.total - seq.computed, budget)
            rows.append(self._row(seq, count))
            budget -= count
        if not rows:
            return None
        return self._plan(rows, new, loads)

    def process(self, step: Step, result: StepResult) -> list[SequenceOutput]:
        """Take a step's tokens in. Sequences that end free what they hold; tokens of ended ones are discarded."""
        outputs = []
        constrained: list[tuple[Sequence, SequenceOutput]] = []
        for at, found in zip(step.plan.prompt_rows, result.prompt_logprobs, strict=True):
            seq = step.rows[at.row]
            seq.prompt_logprobs += found[seq.prompt_known + 1 - at.first :]  # after a preemption some come again
            seq.prompt_known = max(seq.prompt_known, at.first + at.count - 1)
        sampled = (seq for seq, sample in zip(step.rows, step.plan.sample, strict=False) if sample)
        found_logprobs = iter(result.logprobs or ())
        for seq, token in zip(sampled, result.tokens, strict=False):
            logprobs = None if seq.params.logprobs is None else [next(found_logprobs)]
            seq.pending -= 1
            if seq.status is Status.FINISHED:
                continue
            seq.tokens.append(token)
            if seq.status is Status.RUNNING:
                self.blocks.commit(seq)
            reason, stop = seq.finish_reason()
            out = SequenceOutput(seq.request_id, [token], logprobs, reason, stop, max(seq.cached, 0))
            if seq.num_outputs == 1 and seq.params.prompt_logprobs is not None:
                out.prompt_logprobs, seq.prompt_logprobs = seq.prompt_logprobs, []
            outputs.append(out)
            if seq.constraint is not None and reason != 'stop':
                constrained.append((seq, out))
            elif reason is not None:
                self.finish(seq)
        if constrained:
            self._constrain(constrained)
        return outputs

    def finish(self, seq: Sequence) -> None:
        """End a sequence wherever it is."""
        if seq.status is Status.RUNNING:
            self._leave(seq)
            self.running.remove(seq)
        elif seq.status is Status.WAITING:
            self.waiting.remove(seq)
        seq.status = Status.FINISHED
        if seq.adapter:
            self.dropped_adapters += self.adapters.leave(seq.adapter)

    def _constrain(self, taken: list[tuple[Sequence, SequenceOutput]]) -> None:
        """Let grammars take their sequences' new tokens in, and end the sequences that are over."""
        endings = take(
            [(seq.constraint, seq.tokens[seq.prompt_len :]) for seq, _ in taken if seq.constraint is not None]
        )
        for (seq, out), ending in zip(taken, endings, strict=True):
            if ending is not None and ending.error is None:
                out.finish_reason, out.complete = 'stop', True
            elif ending is not None and out.finish_reason is None:
                out.finish_reason, out.error = 'error', f'The answer cannot go on with its grammar: {ending.error}.'
            if out.finish_reason is not None:
                self.finish(seq)

    def _start(self, seq: Sequence) -> list[AdapterLoad] | None:
        """Give a waiting sequence its slot, blocks and adapter; None when one of them is not to be had now."""
        root = (seq.adapter, seq.request.cache_salt)
        found = self.blocks.match(seq, root, use=not seq.wants_prompt)
        if not self.blocks.can_start(found, seq.total):
            return None
        loads: list[AdapterLoad] | None = []
        if seq.adapter:
            loads = self.adapters.acquire(seq.adapter)
            if loads is None:
                return None
        self.blocks.start(seq, found)
        if seq.cached < 0:
            seq.cached = seq.computed
        grown = self.blocks.grow(seq, seq.total)
        assert grown
        seq.slot = self._slots.pop()
        self._starts += 1
        seq.status = Status.RUNNING
        self.running.append(seq)
        return loads

    def _preempt(self, seq: Sequence) -> None:
        self._leave(seq)
        self.running.remove(seq)
        seq.status = Status.WAITING
        self.waiting.appendleft(seq)
        self.num_preemptions += 1

    def _leave(self, seq: Sequence) -> None:
        self.blocks.release(seq)
        self._slots.append(seq.slot)
        seq.slot = -1
        if seq.adapter:
            self.adapters.release(seq.adapter)

    def _row(self, seq: Sequence, count: int) -> tuple[Sequence, int, int]:
        """Schedule `count` tokens; the blocks they fill may be shared at once, even by a later row of the same step."""
        start = seq.computed
        seq.computed = start + count
        self.blocks.commit(seq)
        return seq, start, count

    def _plan(self, rows: list[tuple[Sequence, int, int]], new: list[SlotStart], loads: list[AdapterLoad]) -> Step:
        shared = self._order(rows)
        blocks: list[tuple[int, int, list[int]]] = []
        num_logprobs = -1
        sample = np.zeros(len(rows), dtype=bool)
        prompt_rows: list[PromptRow] = []
        masked: list[int] = []
        for i, (seq, start, count) in enumerate(rows):
            if len(seq.blocks) > seq.sent_blocks:
                blocks.append((seq.slot, seq.sent_blocks, seq.blocks[seq.sent_blocks :]))
                seq.sent_blocks = len(seq.blocks)
            sample[i] = start + count == seq.total
            if sample[i]:
                seq.pending += 1
                if seq.params.logprobs is not None:
                    num_logprobs = max(num_logprobs, self._count(seq.params.logprobs))
                if seq.constraint is not None:
                    masked.append(i)
            last = min(start + count, seq.prompt_len - 1)
            if seq.wants_prompt and last > start:
                assert seq.params.prompt_logprobs is not None
                prompt_rows.append(PromptRow(i, start + 1, last - start, self._count(seq.params.prompt_logprobs)))
        self._step += 1
        plan = StepPlan(
            self._step,
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

    def _order(self, rows: list[tuple[Sequence, int, int]]) -> tuple[int, int, int]:
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
