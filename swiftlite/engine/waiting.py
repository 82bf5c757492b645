"""Sequences that wait: a queue an adapter, and the adapters in order of their oldest sequence."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable

from .adapters.table import Place
from .sequence import Sequence

LOOKED_AT = (Place.OPEN, Place.LOADABLE, Place.UNREAD)


class WaitingLine:
    """The oldest sequence of any adapter, or of those in some place, is found without looking at the others."""

    def __init__(self, place: Callable[[int], Place]):
        """place: of an adapter's uid; `moved` is to be called when it changes."""
        self._place = place
        self._queues: dict[int, OrderedDict[Sequence, int]] = {}  # the value: its tokens
        # (arrival of the oldest sequence, uid); those that are no longer true are left out when they come up
        self._heaps: dict[Place, list[tuple[int, int]]] = {place: [] for place in LOOKED_AT}
        self._arrivals = itertools.count(1)
        self._length = 0
        self.tokens = 0  # of all of them

    def __len__(self) -> int:
        return self._length

    def append(self, seq: Sequence) -> None:
        """A new sequence, the youngest of all."""
        seq.arrival = next(self._arrivals)
        queue = self._queues.setdefault(seq.adapter, OrderedDict())
        self._put(queue, seq)
        if len(queue) == 1:
            self.moved(seq.adapter)

    def put_back(self, seq: Sequence) -> None:
        """A sequence that ran, older than all others of its adapter."""
        queue = self._queues.setdefault(seq.adapter, OrderedDict())
        self._put(queue, seq)
        queue.move_to_end(seq, last=False)
        self.moved(seq.adapter)

    def remove(self, seq: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        queue = self._queues[seq.adapter]
        oldest = next(iter(queue)) is seq
        self.tokens -= queue.pop(seq)
        self._length -= 1
        if not queue:
            del self._queues[seq.adapter]
        elif oldest:
            self.moved(seq.adapter)

    def first(self, *places: Place) -> Sequence | None:
        """The oldest sequence whose adapter is in one of these places."""
        heads = [head for place in places if (head := self._head(place)) is not None]
        return min(heads, key=lambda seq: seq.arrival, default=None)

    def of(self, uid: int) -> list[Sequence]:
        """An adapter's sequences, the oldest first."""
        return list(self._queues.get(uid, ()))

    def adapters(self) -> list[int]:
        """Uids for which sequences wait; 0: the base."""
        return list(self._queues)

    def moved(self, uid: int) -> None:
        """An adapter's place or its oldest sequence is another one."""
        queue = self._queues.get(uid)
        if queue and (heap := self._heaps.get(self._place(uid))) is not None:
            heapq.heappush(heap, (next(iter(queue)).arrival, uid))

    def _put(self, queue: OrderedDict[Sequence, int], seq: Sequence) -> None:
        queue[seq] = seq.total
        self.tokens += seq.total
        self._length += 1

    def _head(self, place: Place) -> Sequence | None:
        heap = self._heaps[place]
        while heap:
            arrival, uid = heap[0]
            queue = self._queues.get(uid)
            if queue and self._place(uid) is place and (oldest := next(iter(queue))).arrival == arrival:
                return oldest
            heapq.heappop(heap)
        return None
