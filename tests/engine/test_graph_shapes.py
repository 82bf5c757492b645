"""Which captured shape a step runs as."""

import numpy as np

from swiftlite.engine.plan import StepPlan
from swiftlite.engine.runner.cuda_graph import StepGraphs


def plan(counts, shared=(0, 0, 0)):
    rows = len(counts)
    zeros = np.zeros(rows, dtype=np.int32)
    return StepPlan(1, zeros, zeros, np.asarray(counts, dtype=np.int32), np.ones(rows, dtype=bool), shared=shared)


def test_shapes_hold_their_plans_and_no_more_than_a_step_may():
    """With more slots than tokens a step, a shape's buffers hold tokens, not slots."""
    for slots, tokens in ((64, 16), (16, 64), (7, 7), (1, 1), (300, 2048)):
        graphs = StepGraphs(slots, tokens)
        for counts in ([1], [1] * 5, [1] * min(slots, tokens), [1] * 4 + [3], [tokens]):
            for shared in ((0, 0, 0), (0, 2, 64)):
                if sum(counts) > tokens or len(counts) > slots:
                    continue
                shape = graphs.shape(plan(counts, shared))
                if shape is None:
                    assert sum(counts) > len(counts) or shared[2], 'every decode step has a graph'
                    continue
                assert sum(counts) <= shape.tokens <= tokens and len(counts) <= shape.rows <= min(slots, tokens)
