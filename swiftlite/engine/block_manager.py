"""KV-cache blocks: who holds them, and which prompt prefixes they still remember.

Paged attention (Kwon et al. 2023, arXiv 2309.06180). A full block's cache key is (key number of the block before it,
its token ids); the chain starts at a root that names everything else that shapes keys and values: the adapter's uid
and the cache salt. Keys are compared, not hashed alone, so two prefixes never collide.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable

from .sequence import Sequence


class BlockManager:
    """`num_blocks` blocks of `block_size` tokens. Unused blocks keep their content until needed, oldest first."""

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool = True):
        self.num_blocks, self.block_size, self.caching = num_blocks, block_size, enable_prefix_caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._refs = [0] * num_blocks
        self._keys: list[tuple[Hashable, tuple[int, ...]] | None] = [None] * num_blocks
        self._numbers = [0] * num_blocks  # key number of a cached block
        self._cached: dict[tuple[Hashable, tuple[int, ...]], int] = {}
        self._count = itertools.count(1)
        self.queries = 0  # prompt tokens looked up
        self.hits = 0  # prompt tokens found

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def match(self, seq: Sequence, root: Hashable, use: bool = True) -> list[int]:
        """Cached blocks for the longest known prefix of `seq`, at least one token short of all of it. Takes nothing.

        use False: none, because every position has to be computed.
        """
        chain: Hashable = ('root', root)  # a tuple, never equal to a key number
        seq.chain = chain
        found: list[int] = []
        if not (self.caching and use):
            return found
        size = self.block_size
        for i in range((len(seq.tokens) - 1) // size):
            block = self._cached.get((chain, tuple(seq.tokens[i * size : (i + 1) * size])))
            if block is None:
                break
            found.append(block)
            chain = self._numbers[block]
        return found

    def can_start(self, found: list[int], num_tokens: int) -> bool:
        """Whether a sequence that shares `found` can get blocks for `num_tokens`."""
        idle = sum(1 for b in found if self._refs[b] == 0)
        return self.blocks_for(num_tokens) - len(found) <= len(self._free) - idle

    def start(self, seq: Sequence, found: list[int]) -> None:
        """Give `seq` the blocks that `match` found; its first len(found) * block_size tokens are computed."""
        for block in found:
            if self._refs[block] == 0:
                del self._free[block]
            self._refs[block] += 1
        seq.blocks = list(found)
        seq.committed = len(found)
        seq.computed = seq.capacity = len(found) * self.block_size
        seq.full_at = seq.computed + self.block_size
        if found:
            seq.chain = self._numbers[found[-1]]
        self.queries += len(seq.tokens)
        self.hits += seq.computed

    def grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Make `seq` hold blocks for `num_tokens`; False (and nothing taken) when too few are free."""
        need = self.blocks_for(num_tokens) - len(seq.blocks)
        if need > len(self._free):
            return False
        for _ in range(need):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._refs[block] = 1
            seq.blocks.append(block)
        seq.capacity = len(seq.blocks) * self.block_size
        return True

    def commit(self, seq: Sequence) -> None:
        """Remember the full blocks of `seq` whose tokens are known and computed."""
        if not self.caching:
            return
        size = self.block_size
        for i in range(seq.committed, min(seq.computed, len(seq.tokens)) // size):
            assert seq.chain is not None
            key = (seq.chain, tuple(seq.tokens[i * size : (i + 1) * size]))
            holder = self._cached.get(key)
            if holder is None:
                block = seq.blocks[i]
                self._cached[key], self._keys[block], self._numbers[block] = block, key, next(self._count)
                holder = block
            seq.chain = self._numbers[holder]
            seq.committed = i + 1
            seq.full_at += size

    def release(self, seq: Sequence) -> None:
        """Take all blocks back; the tail becomes the first to be reused."""
        for block in reversed(seq.blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)
        seq.blocks, seq.capacity = [], 0
        seq.committed, seq.sent_blocks, seq.computed, seq.chain = 0, 0, 0, None

    def reset_prefix_cache(self) -> bool:
        """Forget what unused blocks hold; False if others are in use and keep theirs."""
        for block in self._free:
            self._forget(block)
        return self.num_used == 0

    def forget_all(self) -> None:
        """Nobody finds what was computed until now; sequences keep theirs."""
        for block in range(self.num_blocks):
            self._forget(block)

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            del self._cached[key]
            self._keys[block] = None
