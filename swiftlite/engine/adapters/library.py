"""The adapters of an engine: loaded, replaced, read ahead and forgotten while others run (rank 0)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RequestError
from ..request import LoRARequest
from ..runner.executor import Executor
from ..waiting import WaitingLine
from .copies import HostCopies
from .reader import AdapterRead
from .table import AdapterTable, Copy, Entry, Place

PATIENCE = 0.005  # seconds to wait for a read when there is nothing else to do

Done = Callable[[str | None], None]


@dataclass
class Loading:
    """An adapter on its way in; `done` gets None, or why it is not there."""

    entry: Entry
    done: Done


class AdapterLibrary:
    """Every read happens beside the step loop; `take` brings the results in between two steps."""

    def __init__(self, executor: Executor, table: AdapterTable, copies: HostCopies):
        self._executor, self._table, self._copies = executor, table, copies
        self._loading: dict[int, Loading] = {}  # by uid
        self._reading = 0
        self.reads = self.uploads = 0  # of adapters, since the start
        self._uids = itertools.count(1)

    @property
    def num_copies(self) -> int:
        """Adapters in host memory, or on their way there."""
        return len(self._copies)

    @property
    def busy(self) -> bool:
        """Something is being read."""
        return self._reading > 0

    def load(self, request: LoRARequest, done: Done) -> None:
        """Load an adapter, or new weights for an id; the old ones answer until the new ones are there."""
        entry = Entry(request, next(self._uids))
        self._loading[entry.uid] = Loading(entry, done)
        if request.lora_int_id not in self._table:
            self._table.add(entry)  # requests may wait for it
        self._forget(self._copies.make_room(entry.uid, anyway=True) or [], copy_only=True)
        self._read(entry)

    def uid_for(self, request: LoRARequest) -> int:
        """The adapter that a new request is to run on; it is loaded if its id is new. RequestError: another folder."""
        if request.lora_int_id not in self._table:
            self.load(request, lambda error: None)
        entry = self._table.get(request.lora_int_id)
        known, given = entry.request.lora_path, request.lora_path
        if known != given and os.path.realpath(known) != os.path.realpath(given):
            raise RequestError(f'LoRARequest id {request.lora_int_id} stands for {known}; give {given} another id.')
        return entry.uid

    def remove(self, int_id: int) -> bool:
        """Forget an id, or what is being loaded for it; False if it is unknown."""
        found = int_id in self._table
        for loading in self._loading.values():
            if loading.entry.request.lora_int_id == int_id:
                loading.entry.removed = found = True
        if int_id in self._table:
            self.forget(self._table.remove(int_id))
        return found

    def forget(self, uids: list[int]) -> None:
        """Give up adapters that no sequence needs any more."""
        for uid in uids:
            self._copies.drop(uid)
        self._forget(uids)

    def uploaded(self, uid: int) -> None:
        """An adapter was copied to the devices."""
        self.uploads += 1
        self._copies.used(uid)

    def read_ahead(self, waiting: WaitingLine) -> None:
        """Start to read what sequences wait for, in their order, as far as host memory has room."""
        while (seq := waiting.first(Place.UNREAD)) is not None:
            entry = self._table.find(seq.adapter)
            assert entry is not None
            gone = self._copies.make_room(entry.uid)
            if gone is None:
                return
            self._forget(gone, copy_only=True)
            self._read(entry)

    def take(self, wait: bool) -> dict[int, str]:
        """Bring in what was read; returns the adapters that cannot be used now, and why."""
        failed: dict[int, str] = {}
        if self._reading:
            for read in self._executor.adapters_read(PATIENCE if wait else 0.0):
                self._reading -= 1
                error = self._take(read)
                if error is not None:
                    failed[read.uid] = error
        return failed

    def _read(self, entry: Entry) -> None:
        self._reading += 1
        self.reads += 1
        entry.copy = Copy.READING
        if self._table.find(entry.uid) is not None:
            self._table.set_copy(entry.uid, Copy.READING)
        self._executor.read_adapter(entry.uid, entry.request.lora_path, entry.state)

    def _take(self, read: AdapterRead) -> str | None:
        """Why the sequences on the adapter cannot run, if so."""
        loading = self._loading.pop(read.uid, None)
        entry = loading.entry if loading is not None else self._table.find(read.uid)
        known = self._table.find(read.uid) is not None
        error = read.error
        if loading is not None and not known and self._newer(loading.entry):
            loading.entry.removed = True
        if entry is None or error is not None or (entry.removed and not known):
            self._copies.drop(read.uid)
            self._forget([read.uid], copy_only=True)
        else:
            entry.rank, entry.num_bytes, entry.state = read.rank, read.num_bytes, read.state
            if not known:
                self.forget(self._table.add(entry))
            self._table.set_copy(read.uid, Copy.HERE)
            self._forget(self._copies.arrived(read.uid, read.num_bytes), copy_only=True)
        if loading is not None:
            if error is not None:
                self._give_up(loading.entry)
            elif loading.entry.removed:
                loading.done(f"Adapter '{loading.entry.request.lora_name}' was removed while it was loaded.")
                return None
            loading.done(error)
        return error

    def _newer(self, entry: Entry) -> bool:
        """Whether weights that were asked for later have taken the id already."""
        int_id = entry.request.lora_int_id
        return int_id in self._table and self._table.get(int_id).uid > entry.uid

    def _give_up(self, entry: Entry) -> None:
        """An adapter that was never there: its id is free again."""
        int_id = entry.request.lora_int_id
        if int_id in self._table and self._table.get(int_id) is entry:
            self.forget(self._table.remove(int_id))

    def _forget(self, uids: list[int], copy_only: bool = False) -> None:
        for uid in uids:
            self._executor.forget_adapter(uid, copy_only)
