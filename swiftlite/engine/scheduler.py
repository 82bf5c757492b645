"""Decides what the next step computes, before the last step's tokens are known.

Continuous batching (Orca, OSDI 2022) with chunked prefill (Sarathi, arXiv 2308.16369): running sequences first, then
waiting ones in order of arrival, until the step's token budget is spent. When blocks run out the youngest running
sequence gives its own up and is computed again later.
"""

from __future__ import annotations

import numpy as np

from .adapters.table import AdapterTable, Place
from .block_manager import BlockManager
from .budget import step_budget
from .grammar.constraint import take
from .outputs import SequenceOutput
from .plan import AdapterLoad, SlotStart, StepResult
from .planner import Planner, Row, Step
from .sequence import Sequence, Status
from .shared_prefix import PrefixFinder
from .waiting import WaitingLine

PATIENCE = 32  # steps that a sequence waits for rank pages before running adapters make way
UPLOAD_BYTES = 256 << 20  # of adapters a step: what runs beside it waits for them


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
        self.blocks, self.adapters = blocks, adapters
        self.max_tokens = max_num_batched_tokens
        self.waiting = WaitingLine(adapters.place)
        adapters.on_move = self.waiting.moved
        self.running: list[Sequence] = []
        self._slots = list(range(max_num_seqs - 1, -1, -1))
        self._begun: list[Sequence] = []  # their prompts are partly computed
        self._planner = Planner(vocab_size, prefixes)
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
        budget = self._budget()
        rows: list[Row] = []
        preempted = False
        for seq in list(self.running):
            if budget == 0:
                break
            total = len(seq.tokens) + seq.pending
            if seq.status is not Status.RUNNING or (
                seq.pending and (total >= seq.max_len or seq.constraint is not None)
            ):
                continue  # preempted just now, about to end by length, or waiting for the token its grammar needs
            count = min(total - seq.computed, budget)
            while seq.computed + count > seq.capacity and not self.blocks.grow(seq, seq.computed + count):
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
        if not preempted:
            self._admit(budget, rows, new, loads)
        self._begun = [seq for seq, start, count in rows if start + count < len(seq.tokens) + seq.pending]
        if not rows:
            return None
        return self._planner.make(rows, new, loads)

    def process(self, step: Step, result: StepResult) -> list[SequenceOutput]:
        """Take a step's tokens in. Sequences that end free what they hold; tokens of ended ones are discarded."""
        outputs = []
        constrained: list[tuple[Sequence, SequenceOutput]] = []
        for at, found in zip(step.plan.prompt_rows, result.prompt_logprobs, strict=True):
            seq = step.rows[at.row]
            seq.prompt_logprobs += found[seq.prompt_known + 1 - at.first :]  # after a preemption some come again
            seq.prompt_known = max(seq.prompt_known, at.first + at.count - 1)
        sampled = (seq for seq, sample in zip(step.rows, step.plan.sample.tolist(), strict=True) if sample)
        found_logprobs = iter(result.logprobs or ())
        for seq, token in zip(sampled, result.tokens, strict=False):
            logprobs = None if seq.params.logprobs is None else [next(found_logprobs)]
            seq.pending -= 1
            if seq.status is Status.FINISHED:
                continue
            seq.tokens.append(token)
            length = len(seq.tokens)
            if length >= seq.full_at and seq.status is Status.RUNNING:
                self.blocks.commit(seq)
            reason, stop = seq.finish_reason()
            first = length == seq.prompt_len + 1
            cached = max(seq.cached, 0) if first or reason is not None else 0
            out = SequenceOutput(seq.request_id, [token], logprobs, reason, stop, cached)
            if first and seq.params.prompt_logprobs is not None:
                out.prompt_logprobs, seq.prompt_logprobs = seq.prompt_logprobs, []
            outputs.append(out)
            if seq.constraint is not None and reason != 'stop':
                constrained.append((seq, out))
            elif reason is not None:
                self.finish(seq)
        if constrained:
            self._constrain(constrained)
        return outputs

    def withdraw(self, step: Step) -> None:
        """Take back the step that was planned last: its sequences are computed again from their beginning."""
        for seq, sample in zip(step.rows, step.plan.sample.tolist(), strict=True):
            seq.pending -= sample
        rows = set(step.rows)
        for seq in [seq for seq in reversed(self.running) if seq in rows]:
            self._preempt(seq)
        self.blocks.forget_all()
        for load in step.plan.adapters:
            self.adapters.lose(load.uid)

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

    def fail(self, uid: int, error: str) -> list[SequenceOutput]:
        """End the sequences that wait for an adapter that cannot be had."""
        found = self.waiting.of(uid)
        for seq in found:
            self.finish(seq)
        return [SequenceOutput(seq.request_id, [], finish_reason='error', error=error) for seq in found]

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

    def _budget(self) -> int:
        begun = [seq for seq in self._begun if seq.status is Status.RUNNING]
        if not begun and not self.waiting:
            return self.max_tokens
        left = self.waiting.tokens + sum(seq.total - seq.computed for seq in begun)
        return step_budget(self.max_tokens, len(self.running) - len(begun), left)

    def _admit(self, budget: int, rows: list[Row], new: list[SlotStart], loads: list[AdapterLoad]) -> None:
        """Start waiting sequences in order of arrival, past those whose adapter is not to be had now."""
        self._keep_turns()
        places, uploaded = [Place.OPEN, Place.LOADABLE], 0
        while self._slots and budget > 0:
            seq = self.waiting.first(*places)
            if seq is None or seq.pending:  # preempted with a token in flight
                return
            size = self.adapters.upload_bytes(seq.adapter)
            room = self.adapters.has_room(seq.adapter)
            if not room:
                self._refuse(seq)
            if not room or (size and uploaded and uploaded + size > UPLOAD_BYTES):
                places.remove(Place.LOADABLE)  # the next ones do not overtake it
                continue
            found = self.blocks.match(seq, (seq.adapter, seq.request.cache_salt), use=not seq.wants_prompt)
            if not self.blocks.can_start(found, seq.total):
                return
            uploaded += size
            loads.extend(self._start(seq, found))
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

    def _keep_turns(self) -> None:
        """Let adapters go on that were closed for a sequence that runs by now, or is gone."""
        if self.adapters.any_closed:
            oldest = self.waiting.first(Place.LOADABLE)
            if oldest is None or not oldest.refused:
                self.adapters.reopen()

    def _refuse(self, seq: Sequence) -> None:
        """A sequence finds no pages: after some steps, the adapters that can be idle soonest make way for its own."""
        if not seq.refused:
            seq.refused = max(self._planner.step, 1)
        if self._planner.step - seq.refused < PATIENCE:
            return
        left: dict[int, int] = {}
        for other in self.running:
            if other.adapter:
                left[other.adapter] = max(left.get(other.adapter, 0), other.max_len - other.total)
        self.adapters.close(seq.adapter, sorted(left, key=left.__getitem__))

    def _start(self, seq: Sequence, found: list[int]) -> list[AdapterLoad]:
        """Give a waiting sequence its slot, blocks and adapter; the loads it needs."""
        self.waiting.remove(seq)
        self.blocks.start(seq, found)
        if seq.cached < 0:
            seq.cached = seq.computed
        grown = self.blocks.grow(seq, seq.total)
        assert grown
        seq.slot = self._slots.pop()
        seq.refused = 0
        seq.status = Status.RUNNING
        self.running.append(seq)
        return self.adapters.acquire(seq.adapter) if seq.adapter else []

    def _preempt(self, seq: Sequence) -> None:
        self._leave(seq)
        self.running.remove(seq)
        seq.status = Status.WAITING
        self.waiting.put_back(seq)
        self.num_preemptions += 1

    def _leave(self, seq: Sequence) -> None:
        self.blocks.release(seq)
        self._slots.append(seq.slot)
        seq.slot = -1
        if seq.adapter:
            self.adapters.release(seq.adapter)

    def _row(self, seq: Sequence, count: int) -> Row:
        """Schedule `count` tokens; the blocks they fill may be shared at once, even by a later row of the same step."""
        start = seq.computed
        seq.computed = start + count
        if seq.computed >= seq.full_at:
            self.blocks.commit(seq)
        return seq, start, count
