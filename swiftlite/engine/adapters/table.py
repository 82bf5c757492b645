"""Which adapters exist, where their weights are, and who holds the rank pages (rank 0's book-keeping)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from ...checkpoint.adapter import AdapterState
from ...layers.lora import PAGE
from ..plan import AdapterLoad
from ..request import LoRARequest


class Place(Enum):
    """Where an adapter is: what a sequence that waits for it needs next."""

    OPEN = 0  # in pages (or no adapter): nothing
    CLOSED = 1  # in pages, but others wait for them: their turn
    LOADABLE = 2  # in host memory: pages
    UNREAD = 3  # on disk: a read
    READING = 4


class Copy(Enum):
    """The copy in host memory."""

    NONE = 0
    READING = 1
    HERE = 2


@dataclass
class Entry:
    """An adapter; uid is fresh for every load. sequences: alive on it; running: those that need its pages."""

    request: LoRARequest
    uid: int
    rank: int = 0  # 0: not known before it was read
    num_bytes: int = 0  # of a copy in host memory
    state: AdapterState | None = None  # of the files it was loaded from
    copy: Copy = Copy.NONE
    sequences: int = 0
    running: int = 0
    removed: bool = False
    closed: bool = False
    pages: tuple[int, ...] = field(default=())

    @property
    def last_place(self) -> bool:
        """Whether its pages are all that is left of it: the files may be another adapter's by now."""
        return self.removed and self.sequences > 0 and self.copy is not Copy.HERE


class AdapterTable:
    """Adapters by id; at most `num_pages` rank pages in use, the least recently used idle adapter gives way first."""

    def __init__(self, num_pages: int):
        self.num_pages = num_pages
        self.on_move: Callable[[int], None] = lambda uid: None  # an adapter's place may be another one now
        self._free = list(range(num_pages - 1, -1, -1))
        self._by_id: dict[int, Entry] = {}
        self._by_uid: dict[int, Entry] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # uids that hold pages and run nothing, oldest first
        self._closed: list[int] = []

    def __contains__(self, int_id: int) -> bool:
        return int_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, int_id: int) -> Entry:
        return self._by_id[int_id]

    def find(self, uid: int) -> Entry | None:
        """The entry of a load, None when it is forgotten."""
        return self._by_uid.get(uid)

    def names(self, uids: Iterable[int]) -> list[str]:
        """Of these adapters, in order; 0 has none."""
        return sorted({self._by_uid[uid].request.lora_name for uid in uids if uid})

    def add(self, entry: Entry) -> list[int]:
        """Register, replacing the id's adapter if any (its sequences keep the old one). Returns uids to forget."""
        int_id = entry.request.lora_int_id
        gone = self.remove(int_id) if int_id in self._by_id else []
        self._by_id[int_id] = self._by_uid[entry.uid] = entry
        return gone

    def remove(self, int_id: int) -> list[int]:
        """Forget the id; returns the uids that no sequence uses any more."""
        entry = self._by_id.pop(int_id)
        entry.removed = True
        if entry.last_place:
            self._idle.pop(entry.uid, None)
            self._open(entry)
        return self._collect(entry)

    def reserve(self, uid: int) -> None:
        """A sequence on `uid` entered: the adapter outlives its removal until the sequence leaves."""
        self._by_uid[uid].sequences += 1

    def leave(self, uid: int) -> list[int]:
        """A sequence on `uid` ended; returns uids to forget."""
        entry = self._by_uid[uid]
        entry.sequences -= 1
        return self._collect(entry) if entry.removed else []

    def place(self, uid: int) -> Place:
        """Where the adapter is; 0 is none."""
        if not uid:
            return Place.OPEN
        entry = self._by_uid[uid]
        if entry.pages:
            return Place.CLOSED if entry.closed else Place.OPEN
        return {Copy.NONE: Place.UNREAD, Copy.READING: Place.READING, Copy.HERE: Place.LOADABLE}[entry.copy]

    def set_copy(self, uid: int, copy: Copy) -> None:
        """A copy in host memory is being made, is there, or is gone."""
        entry = self._by_uid.get(uid)
        if entry is not None:
            entry.copy = copy
            self.on_move(uid)

    def upload_bytes(self, uid: int) -> int:
        """What has to be copied to each device before a sequence on `uid` runs."""
        entry = self._by_uid.get(uid)
        return 0 if entry is None or entry.pages else entry.num_bytes

    def has_room(self, uid: int) -> bool:
        """Whether there are pages for the adapter now: its own, free ones, or those of idle adapters."""
        return not uid or bool(self._by_uid[uid].pages) or _pages(self._by_uid[uid]) <= self._available()

    def acquire(self, uid: int) -> list[AdapterLoad]:
        """A sequence starts on `uid`, for which there is room: the loads its step needs, often none."""
        entry = self._by_uid[uid]
        loads: list[AdapterLoad] = []
        if not entry.pages:
            while len(self._free) < _pages(entry):
                self._reclaim(self._by_uid[self._least_needed()])
            entry.pages = tuple(self._free.pop() for _ in range(_pages(entry)))
            loads.append(AdapterLoad(uid, entry.pages))
            self.on_move(uid)
        self._idle.pop(uid, None)
        entry.running += 1
        return loads

    def release(self, uid: int) -> None:
        """A sequence on `uid` stopped running (it ended or was preempted)."""
        entry = self._by_uid[uid]
        entry.running -= 1
        if entry.running == 0 and not entry.last_place:
            self._idle[uid] = None

    def lose(self, uid: int) -> None:
        """An adapter on which nothing runs is not in its pages after all."""
        self._reclaim(self._by_uid[uid])

    def close(self, uid: int, order: Iterable[int]) -> None:
        """Let no more sequences start on adapters, in this order, until `uid` can have their pages."""
        promised = self._available() + sum(len(self._by_uid[u].pages) for u in self._closed if u not in self._idle)
        for other in order:
            if promised >= _pages(self._by_uid[uid]):
                return
            entry = self._by_uid[other]
            if not entry.closed and entry.pages and not entry.last_place:  # whose sequences all have to run first
                entry.closed = True
                self._closed.append(other)
                promised += len(entry.pages)
                self.on_move(other)

    def reopen(self) -> None:
        """Undo `close`."""
        for uid in list(self._closed):
            self._open(self._by_uid[uid])

    @property
    def num_resident(self) -> int:
        """Adapters that are in pages."""
        return sum(1 for entry in self._by_uid.values() if entry.pages)

    @property
    def pages_used(self) -> int:
        return self.num_pages - len(self._free)

    @property
    def any_closed(self) -> bool:
        return bool(self._closed)

    def _available(self) -> int:
        return len(self._free) + sum(len(self._by_uid[u].pages) for u in self._idle)

    def _least_needed(self) -> int:
        """The idle adapter to take pages from: the least recently used that no sequence waits for, if there is one."""
        return next((uid for uid in self._idle if not self._by_uid[uid].sequences), next(iter(self._idle)))

    def _collect(self, entry: Entry) -> list[int]:
        if entry.sequences:
            return []
        self._reclaim(entry)
        del self._by_uid[entry.uid]
        return [entry.uid]

    def _reclaim(self, entry: Entry) -> None:
        self._idle.pop(entry.uid, None)
        self._free.extend(entry.pages)
        entry.pages = ()
        self._open(entry)
        self.on_move(entry.uid)

    def _open(self, entry: Entry) -> None:
        if entry.closed:
            entry.closed = False
            self._closed.remove(entry.uid)
            self.on_move(entry.uid)


def _pages(entry: Entry) -> int:
    return -(-entry.rank // PAGE)
