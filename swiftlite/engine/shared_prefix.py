"""Which decoding sequences have a long prefix in common, so that attention can read it once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .sequence import Sequence

# tokens that need not be read again; below, finding and merging costs more than reading
WORTHWHILE = 32768


@dataclass(frozen=True)
class SharedPrefix:
    """Slots of sequences whose first `tokens` tokens lie in the same blocks."""

    slots: frozenset[int]
    tokens: int


class PrefixFinder:
    """Finds the prefix whose sharing saves most. An answer holds until a sequence enters or leaves a slot."""

    def __init__(self, block_size: int, worthwhile: int = WORTHWHILE):
        self.block_size, self.worthwhile = block_size, worthwhile
        self._key: tuple[int, tuple[int, ...]] | None = None
        self._found: SharedPrefix | None = None

    def find(self, sequences: Iterable[Sequence], version: int) -> SharedPrefix | None:
        """`version` changes whenever a slot gets another sequence."""
        sequences = list(sequences)
        key = version, tuple(seq.slot for seq in sequences)
        if key != self._key:
            self._key, self._found = key, self._search(sequences)
        return self._found

    def _search(self, sequences: list[Sequence]) -> SharedPrefix | None:
        groups: dict[int, list[Sequence]] = defaultdict(list)
        for seq in sequences:
            groups[seq.blocks[0]].append(seq)
        best, most = None, self.worthwhile
        for group in groups.values():
            tokens = self._common(group) * self.block_size if len(group) > 1 else 0
            if (len(group) - 1) * tokens >= most:
                best, most = SharedPrefix(frozenset(seq.slot for seq in group), tokens), (len(group) - 1) * tokens
        return best

    def _common(self, group: list[Sequence]) -> int:
        """Blocks at the start that all have: who shares a block shares those before it, so bisect."""
        low, high = 0, min((seq.total - 1) // self.block_size for seq in group)
        first = group[0].blocks
        while low < high:
            middle = (low + high + 1) // 2
            if all(seq.blocks[middle - 1] == first[middle - 1] for seq in group):
                low = middle
            else:
                high = middle - 1
        return low
