"""Which adapters have a copy in host memory (rank 0's book-keeping for all ranks)."""

from __future__ import annotations

from collections import OrderedDict

from .table import AdapterTable, Copy


class HostCopies:
    """Copies that are there or being read; the least recently used that no waiting sequence needs gives way first."""

    def __init__(self, table: AdapterTable, max_count: int | None, max_bytes: int):
        """max_count None: as many as max_bytes hold; else that many of any size."""
        self._table = table
        self._max_count, self._max_bytes = max_count, max_bytes
        self._uids: OrderedDict[int, int] = OrderedDict()  # uid → bytes as far as they are known, oldest use first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._uids)

    def make_room(self, uid: int, anyway: bool = False) -> list[int] | None:
        """Give `uid` a place; returns the copies to drop for it, or None when those that are needed leave no room.

        A copy that is alone may be larger than the limit. anyway: there is always room.
        """
        entry = self._table.find(uid)
        size = entry.num_bytes if entry is not None else 0
        gone, count, total = [], len(self._uids), self._bytes
        for other in self._uids:
            if self._fits(count + 1, total + size):
                break
            if not self._needed(other):
                gone.append(other)
                count, total = count - 1, total - self._uids[other]
        if count and not anyway and not self._fits(count + 1, total + size):
            return None
        for other in gone:
            self.drop(other)
        self._uids[uid] = size
        self._bytes += size
        return gone

    def arrived(self, uid: int, num_bytes: int) -> list[int]:
        """A copy was read and its size is known; returns the copies to drop because of it."""
        self._bytes += num_bytes - self._uids.get(uid, 0)
        self._uids[uid] = num_bytes
        self.used(uid)
        gone = []
        for other in list(self._uids):
            if self._fits(len(self._uids), self._bytes):
                break
            if other != uid and not self._needed(other):
                gone.append(other)
                self.drop(other)
        return gone

    def used(self, uid: int) -> None:
        if uid in self._uids:
            self._uids.move_to_end(uid)

    def drop(self, uid: int) -> None:
        """A copy is given up."""
        self._bytes -= self._uids.pop(uid, 0)
        self._table.set_copy(uid, Copy.NONE)

    def _fits(self, count: int, num_bytes: int) -> bool:
        return count <= self._max_count if self._max_count is not None else num_bytes <= self._max_bytes

    def _needed(self, uid: int) -> bool:
        """It is being read, sequences wait until it is copied to the device, or it cannot be read again."""
        entry = self._table.find(uid)
        if entry is None:  # it is read to take another's place
            return True
        return entry.copy is Copy.READING or (entry.sequences > 0 and (entry.removed or not entry.pages))
