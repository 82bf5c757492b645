"""Turns: adapters in pages in order of arrival, the others within a bound, and no look at those that wait behind."""

import random

import pytest

from swiftlite.engine import waiting
from swiftlite.engine.adapters.table import AdapterTable, Copy, Entry, Place
from swiftlite.engine.block_manager import BlockManager
from swiftlite.engine.outputs import SequenceOutput
from swiftlite.engine.plan import StepResult
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.scheduler import PATIENCE, Scheduler
from swiftlite.engine.sequence import Sequence
from swiftlite.engine.waiting import WaitingLine
from tests.engine.runs import greedy


class Batch:
    """A scheduler over adapters of one page each that are all in host memory; every step gives its rows a token."""

    def __init__(self, pages: int, adapters: int, slots: int = 64, ranks=lambda uid: 8):
        self.table = AdapterTable(pages)
        for uid in range(1, adapters + 1):
            self.table.add(Entry(LoRARequest(f'a{uid}', uid, '/a'), uid, ranks(uid), 1 << 20, copy=Copy.HERE))
        self.scheduler = Scheduler(BlockManager(10_000, 16), self.table, slots, 4096, 100)
        self.uploads = self.steps = self._number = 0

    def add(self, uid: int, max_tokens: int = 4) -> Sequence:
        self._number += 1
        lora = LoRARequest('a', uid, '/a') if uid else None
        request = EngineRequest(str(self._number), [self._number % 90 + 2] * 5, greedy(max_tokens), lora)
        seq = Sequence(request, 0, frozenset(), 1000, uid)
        self.scheduler.enter(seq)
        self.scheduler.add(seq)
        return seq

    def step(self) -> list[SequenceOutput]:
        step = self.scheduler.schedule()
        if step is None:
            return []
        self.steps += 1
        self.uploads += len(step.plan.adapters)
        return self.scheduler.process(step, StepResult(step.plan.step, [50] * int(step.plan.sample.sum())))


@pytest.mark.parametrize('slots', [4, 64])
@pytest.mark.parametrize('length', [1, 8, 40])
def test_an_adapter_that_is_not_in_pages_gets_its_turn(length, slots):
    """Requests of two adapters come without end and hold both pages; the third one waits a bounded time."""
    batch = Batch(pages=2, adapters=3, slots=slots)
    for _ in range(3):
        for uid in (1, 2):
            batch.add(uid, length)
        batch.step()
    late = batch.add(3)
    waited = 0
    while not late.num_outputs and waited < 10 * PATIENCE:
        for uid in (1, 2, 1, 2):
            batch.add(uid, length)
        batch.step()
        waited += 1
    backlog = 12 * length // slots  # what came before and waits for slots
    assert waited <= PATIENCE + 2 * length + backlog + 4
    for _ in range(3 * PATIENCE):  # and the two that made way go on
        batch.step()
    assert batch.table.place(1) is Place.OPEN or batch.table.place(2) is Place.OPEN


def test_nobody_waits_for_ever_among_many_adapters_and_ranks():
    """Streams of popular adapters, and now and then one of 40 others of any rank: all are answered within a bound."""
    rng = random.Random(0)
    batch = Batch(pages=8, adapters=44, ranks=lambda uid: 8 * (1 + uid % 4))
    born: dict[Sequence, int] = {}
    worst = 0
    for number in range(1500):
        for uid in (41, 42, 43, 44):
            batch.add(uid, 6)
        if number % 25 == 0 and number < 1000:
            born[batch.add(rng.randint(1, 40), 6)] = number
        batch.step()
        for seq in [seq for seq in born if seq.num_outputs]:
            worst = max(worst, number - born.pop(seq))
    assert not born
    assert worst <= 4 * (PATIENCE + 6)


def test_the_closed_go_on_when_the_one_they_made_way_for_is_gone():
    batch = Batch(pages=1, adapters=2)
    batch.add(1, 500)
    batch.step()
    late = batch.add(2)
    for _ in range(PATIENCE + 2):
        batch.step()
    assert batch.table.place(1) is Place.CLOSED
    waits = batch.add(1)
    batch.step()
    assert waits.slot == -1
    batch.scheduler.finish(late)
    batch.step()
    assert waits.num_outputs == 1


@pytest.mark.parametrize('removed_first', [True, False])
def test_pages_of_replaced_weights_stay_while_nothing_else_is_left_of_them(removed_first):
    """A preempted sequence goes on with them, though its folder may hold others by now."""
    batch = Batch(pages=1, adapters=2)
    table = batch.table
    seq = batch.add(1, 6)
    batch.step()
    table.set_copy(1, Copy.NONE)
    if removed_first:
        table.remove(1)
    batch.scheduler._preempt(seq)
    if not removed_first:
        table.remove(1)
    assert not table.has_room(2)
    other = batch.add(2)
    while batch.scheduler.has_work:
        batch.step()
    assert (seq.num_outputs, other.num_outputs, batch.uploads) == (6, 4, 2)
    assert table.find(1) is None


@pytest.mark.parametrize('removed_first', [True, False])
def test_weights_that_are_only_in_pages_do_not_make_way(removed_first):
    """Those of a replaced adapter: its sequences are the only ones that can give the pages back."""
    batch = Batch(pages=1, adapters=2)
    table = batch.table
    sequences = [batch.add(1, 3 * PATIENCE) for _ in range(2)]
    batch.step()
    table.set_copy(1, Copy.NONE)
    if removed_first:
        table.remove(1)
    sequences.append(batch.add(2))
    for _ in range(PATIENCE + 2):
        batch.step()
    assert table.place(1) is (Place.OPEN if removed_first else Place.CLOSED)
    batch.scheduler._preempt(sequences[1])
    if not removed_first:
        table.remove(1)
    for _ in range(6 * PATIENCE):
        batch.step()
    assert not batch.scheduler.has_work and all(seq.num_outputs == seq.params.max_tokens for seq in sequences)


def test_a_burst_over_a_thousand_adapters():
    """Every adapter is copied once where its sequences come together, and a step looks at few that wait."""
    batch = Batch(pages=16, adapters=1000, slots=256)
    order = [uid for uid in range(1, 1001) for _ in range(3)]
    random.Random(1).shuffle(order)
    sequences = [batch.add(uid, 3) for uid in order]
    looks = 0
    head = waiting.WaitingLine._head

    def counted(self, place):
        nonlocal looks
        looks += 1
        return head(self, place)

    waiting.WaitingLine._head = counted
    try:
        while batch.scheduler.has_work:
            batch.step()
    finally:
        waiting.WaitingLine._head = head
    assert all(seq.num_outputs == 3 for seq in sequences)
    assert batch.uploads == 1000  # the three of an adapter run together
    assert looks <= 3 * (len(sequences) + batch.steps)
    assert batch.steps <= 1000 // 16 * 4 + 10


def test_uploads_of_a_step_are_limited():
    batch = Batch(pages=100, adapters=100)
    for entry in batch.table._by_uid.values():
        entry.num_bytes = 100 << 20
    for uid in range(1, 21):
        batch.add(uid)
    batch.step()
    assert batch.uploads == 2
    batch.step()
    assert batch.uploads == 4


def test_an_upload_beyond_the_limit_holds_up_adapters_only():
    """One that is larger goes alone; the base and adapters in pages start beside it."""
    batch = Batch(pages=4, adapters=3)
    batch.add(3, 20)
    batch.step()
    for uid in (1, 2):
        batch.table.get(uid).num_bytes = 300 << 20
    first, second, plain, resident = [batch.add(uid) for uid in (1, 2, 0, 3)]
    batch.step()
    assert [seq.num_outputs for seq in (first, second, plain, resident)] == [1, 0, 1, 1]
    batch.step()
    assert second.num_outputs == 1


def test_a_line_finds_the_oldest_whatever_happens():
    """Against a plain list: arrivals, departures, returns and moves in any order."""
    rng = random.Random(3)
    places = dict.fromkeys(range(6), Place.OPEN)
    line = WaitingLine(places.__getitem__)
    model: list[Sequence] = []
    for number in range(3000):
        action = rng.random()
        if action < 0.4 or not model:
            seq = Sequence(EngineRequest(str(number), [1], greedy(1)), 0, frozenset(), 9, rng.randrange(6))
            line.append(seq)
            model.append(seq)
        elif action < 0.6:
            seq = rng.choice(model)
            model.remove(seq)
            line.remove(seq)
        elif action < 0.7:
            seq = next(s for s in model if s.adapter == model[0].adapter)
            line.remove(seq)
            line.put_back(seq)
        else:
            uid = rng.randrange(6)
            places[uid] = rng.choice(list(Place))
            line.moved(uid)
        assert len(line) == len(model)
        for asked in ((Place.OPEN,), (Place.LOADABLE, Place.OPEN), (Place.UNREAD,)):
            fitting = [s for s in model if places[s.adapter] in asked]
            assert line.first(*asked) is min(fitting, key=lambda s: s.arrival, default=None)
