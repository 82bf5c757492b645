"""Blocks: whoever holds them, none is lost, doubled or handed over with another prefix's content."""

from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.engine.block_manager import BlockManager
from swiftlite.engine.request import EngineRequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.engine.sequence import Sequence


def sequence(tokens, name='x'):
    return Sequence(EngineRequest(name, tokens, SamplingParams()), 0, frozenset(), 1000, 0)


def start(blocks, seq, root=0):
    found = blocks.match(seq, root)
    if not blocks.can_start(found, len(seq.tokens)):
        return False
    blocks.start(seq, found)
    assert blocks.grow(seq, len(seq.tokens))
    seq.computed = len(seq.tokens)
    blocks.commit(seq)
    return True


def test_a_prefix_is_found_again_under_its_own_root_only():
    blocks = BlockManager(8, 4)
    first = sequence(list(range(10)))
    assert start(blocks, first, root='adapter-1')
    assert len(blocks.match(sequence(list(range(10))), 'adapter-1')) == 2
    assert blocks.match(sequence(list(range(10))), 'adapter-2') == []
    assert len(blocks.match(sequence(list(range(8))), 'adapter-1')) == 1  # one token is left to compute
    assert blocks.match(sequence([9, *range(1, 10)]), 'adapter-1') == []
    blocks.release(first)
    assert blocks.num_used == 0
    assert len(blocks.match(sequence(list(range(10))), 'adapter-1')) == 2  # remembered until reused


def test_reuse_forgets_the_oldest_and_the_tail_first():
    blocks = BlockManager(4, 2)
    old = sequence([1, 2, 3, 4, 5])
    assert start(blocks, old)
    blocks.release(old)
    assert start(blocks, sequence([7, 7, 8, 8]))
    assert len(blocks.match(sequence([1, 2, 3, 4, 5]), 0)) == 2
    assert start(blocks, sequence([9, 9]))
    assert len(blocks.match(sequence([1, 2, 3, 4, 5]), 0)) == 1


def test_caching_can_be_off():
    blocks = BlockManager(8, 4, enable_prefix_caching=False)
    assert start(blocks, sequence(list(range(10))))
    assert blocks.match(sequence(list(range(10))), 0) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_of_starts_growth_and_ends(data):
    """A model of the cache's content: a found block must hold exactly the tokens it is found for."""
    blocks = BlockManager(data.draw(st.integers(1, 12)), size := data.draw(st.integers(1, 4)))
    content: dict[int, tuple] = {}
    alive: list[tuple[Sequence, int]] = []

    def written(seq, root):
        for i in range(-(-seq.computed // size)):
            content[seq.blocks[i]] = (root, tuple(seq.tokens[: min((i + 1) * size, seq.computed)]))

    for _ in range(data.draw(st.integers(1, 30))):
        action = data.draw(st.sampled_from(['start', 'grow', 'end']))
        if action == 'start':
            seq = sequence(data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=14)))
            root = data.draw(st.integers(0, 1))
            for i, block in enumerate(blocks.match(seq, root)):
                assert content[block] == (root, tuple(seq.tokens[: (i + 1) * size]))
            if start(blocks, seq, root):
                written(seq, root)
                alive.append((seq, root))
        elif alive:
            seq, root = alive[data.draw(st.integers(0, len(alive) - 1))]
            if action == 'end':
                blocks.release(seq)
                alive.remove((seq, root))
            elif blocks.grow(seq, len(seq.tokens) + 1):
                seq.tokens.append(data.draw(st.integers(0, 1)))
                seq.computed += 1
                written(seq, root)
                blocks.commit(seq)
        held = [b for seq, _ in alive for b in seq.blocks]
        assert blocks.num_used == len(set(held))
        for seq, root in alive:  # nobody wrote into another's blocks
            for i in range(seq.computed // size):
                assert content[seq.blocks[i]] == (root, tuple(seq.tokens[: (i + 1) * size]))
