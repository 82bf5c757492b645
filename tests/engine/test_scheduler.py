"""What the scheduler counts along, against what it would count anew."""

from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.engine import budget
from swiftlite.engine.adapters.table import AdapterTable, Copy, Entry
from swiftlite.engine.block_manager import BlockManager
from swiftlite.engine.plan import StepResult
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.scheduler import Scheduler
from swiftlite.engine.sequence import Sequence, Status
from tests.engine.runs import greedy

LONGEST = 40


def consistent(scheduler: Scheduler, blocks: BlockManager, alive: list[Sequence]) -> None:
    assert scheduler.waiting.tokens == sum(seq.total for seq in alive if seq.status is Status.WAITING)
    for seq in alive:
        assert seq.capacity == len(seq.blocks) * blocks.block_size
        if seq.status is Status.RUNNING:
            assert seq.computed <= min(seq.capacity, seq.total)
            full = min(seq.computed, len(seq.tokens)) // blocks.block_size
            assert seq.committed == (full if blocks.caching else 0)
            assert seq.full_at == (seq.committed + 1) * blocks.block_size


@settings(max_examples=100)
@given(st.data(), st.booleans(), st.integers(0, 1), st.integers(2, 5), st.integers(1, 4))
def test_any_order_of_arrivals_ends_and_preemptions(data, caching, lookahead, slots, size):
    """Few blocks, so that sequences are preempted, with tokens in flight or without; all that stay are answered."""
    blocks = BlockManager(-(-LONGEST // size) + data.draw(st.integers(0, 4)), size, caching)
    table = AdapterTable(2)
    for uid in range(1, 4):
        table.add(Entry(LoRARequest(f'a{uid}', uid, '/a'), uid, 8, 1 << 20, copy=Copy.HERE))
    scheduler = Scheduler(blocks, table, slots, data.draw(st.integers(slots, 60)), 100)
    alive: list[Sequence] = []
    inflight = []
    tile = data.draw(st.integers(1, 16))

    def step() -> bool:
        """Whether anything was done."""
        planned = scheduler.schedule()
        if planned is not None:
            assert 0 < int(planned.plan.counts.sum()) <= scheduler.max_tokens
            inflight.append(planned)
        consistent(scheduler, blocks, alive)
        done = planned is not None
        while inflight and (planned is None or len(inflight) > lookahead):
            oldest = inflight.pop(0)
            tokens = [2 + len(seq.tokens) % 3 for seq, new in zip(oldest.rows, oldest.plan.sample, strict=True) if new]
            for out in scheduler.process(oldest, StepResult(oldest.plan.step, tokens)):
                if out.finish_reason is not None:
                    alive[:] = [seq for seq in alive if seq.request_id != out.request_id]
            planned, done = True, True
        consistent(scheduler, blocks, alive)
        return done

    usual, budget.TILE = budget.TILE, tile
    light, budget.LIGHT = budget.LIGHT, data.draw(st.integers(0, 60))
    try:
        for number in range(data.draw(st.integers(5, 60))):
            action = data.draw(st.sampled_from(['add', 'add', 'step', 'step', 'step', 'abort', 'reset']))
            if action == 'add':
                prompt = [2 + i % 3 for i in range(data.draw(st.integers(1, 20)))]
                params = greedy(data.draw(st.integers(5, 30)))
                request, uid = EngineRequest(str(number), prompt, params), data.draw(st.integers(0, 3))
                alive.append(Sequence(request, 0, frozenset(), LONGEST, uid))
                scheduler.enter(alive[-1])
                scheduler.add(alive[-1])
            elif action == 'abort' and alive:
                scheduler.finish(alive.pop(data.draw(st.integers(0, len(alive) - 1))))
            elif action == 'reset':
                blocks.reset_prefix_cache()
            else:
                step()
            consistent(scheduler, blocks, alive)
        left = 2000
        while scheduler.has_work:
            assert step() and (left := left - 1)
    finally:
        budget.TILE, budget.LIGHT = usual, light
    assert not alive and blocks.num_used == 0 and scheduler.waiting.tokens == 0
