"""Which adapters exist, and which of them lie in the rank pages of the devices (rank 0's book-keeping)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ..layers.lora import PAGE
from .plan import AdapterLoad
from .request import LoRARequest


@dataclass
class Entry:
    """A loaded adapter; uid is fresh for every load. sequences: alive on it; running: those that need its pages."""

    request: LoRARequest
    uid: int
    rank: int
    sequences: int = 0
    running: int = 0
    removed: bool = False
    pages: tuple[int, ...] = field(default=())


class AdapterTable:
    """Adapters by id; at most `num_pages` rank pages in use, the least recently used idle adapter gives way first."""

    def __init__(self, num_pages: int):
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._by_id: dict[int, Entry] = {}
        self._by_uid: dict[int, Entry] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # uids that hold pages and run nothing, oldest first

    def __contains__(self, int_id: int) -> bool:
        return int_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, int_id: int) -> Entry:
        return self._by_id[int_id]

    def requests(self) -> list[LoRARequest]:
        return [e.request for e in self._by_id.values()]

    def add(self, request: LoRARequest, uid: int, rank: int) -> list[int]:
        """Register, replacing the id's adapter if any (its sequences keep the old one). Returns uids to forget.

        rank: at most max_lora_rank, for which there are pages.
        """
        gone = self.remove(request.lora_int_id) if request.lora_int_id in self._by_id else []
        self._by_id[request.lora_int_id] = self._by_uid[uid] = Entry(request, uid, rank)
        return gone

    def remove(self, int_id: int) -> list[int]:
        """Forget the id; returns the uids that no sequence uses any more."""
        entry = self._by_id.pop(int_id)
        entry.removed = True
        return self._collect(entry)

    def reserve(self, uid: int) -> None:
        """A sequence on `uid` entered: the adapter outlives its removal until the sequence leaves."""
        self._by_uid[uid].sequences += 1

    def leave(self, uid: int) -> list[int]:
        """A sequence on `uid` ended; returns uids to forget."""
        entry = self._by_uid[uid]
        entry.sequences -= 1
        return self._collect(entry) if entry.removed else []

    def acquire(self, uid: int) -> list[AdapterLoad] | None:
        """A sequence starts on `uid`: the loads its step needs (often none), or None when no pages can be freed now."""
        entry = self._by_uid[uid]
        loads: list[AdapterLoad] = []
        if not entry.pages:
            need = -(-entry.rank // PAGE)
            available = len(self._free) + sum(len(self._by_uid[u].pages) for u in self._idle)
            if need > available:
                return None
            while len(self._free) < need:
                oldest, _none = self._idle.popitem(last=False)
                self._reclaim(self._by_uid[oldest])
            entry.pages = tuple(self._free.pop() for _ in range(need))
            loads.append(AdapterLoad(uid, entry.pages))
        self._idle.pop(uid, None)
        entry.running += 1
        return loads

    def release(self, uid: int) -> None:
        """A sequence on `uid` stopped running (it ended or was preempted)."""
        entry = self._by_uid[uid]
        entry.running -= 1
        if entry.running == 0:
            self._idle[uid] = None

    @property
    def pages_used(self) -> int:
        return self.num_pages - len(self._free)

    def _collect(self, entry: Entry) -> list[int]:
        if entry.sequences:
            return []
        self._idle.pop(entry.uid, None)
        self._reclaim(entry)
        del self._by_uid[entry.uid]
        return [entry.uid]

    def _reclaim(self, entry: Entry) -> None:
        self._free.extend(entry.pages)
        entry.pages = ()
