"""When to plan the next step: so late that requests which come meanwhile are part of it, so early that the device
never waits for it. Planned at once, a step that lies ready delays every new request by its own length.
"""

from __future__ import annotations

import time
from collections import deque

from .planner import Step

MARGIN = 0.0005  # seconds a step is planned before it must be
ALIKE = 8  # sequences more or less, with which a step takes about as long


class Pacer:
    """Knows how long steps that only decode take, and how long it takes to plan one."""

    def __init__(self) -> None:
        self._host = deque([1.0], maxlen=8)  # seconds; no waiting before some steps were planned
        self._device: deque[float] = deque(maxlen=3)
        self._rows = 0  # of the steps in `_device`
        self._began: float | None = None  # when the step that runs now began
        self._running: Step | None = None

    def planned(self, seconds: float) -> None:
        """What planning and submitting a step took."""
        self._host.append(seconds)

    def finished(self, step: Step, following: Step | None, late: bool) -> None:
        """A step's result is known now, and `following` runs. `late`: it was there before anybody waited for it."""
        now = time.perf_counter()
        if late:
            self._device.clear()
        elif self._began is not None and _decodes(step):
            if abs(len(step.rows) - self._rows) > ALIKE:
                self._device.clear()
            self._rows = len(step.rows)
            self._device.append(now - self._began)
        self._running, self._began = following, now if following is not None else None

    @property
    def due(self) -> float:
        """When the next step must be planned, by time.perf_counter(); 0 for at once."""
        step = self._running
        if self._began is None or step is None or not self._device or not _decodes(step):
            return 0.0
        if abs(len(step.rows) - self._rows) > ALIKE:
            return 0.0
        return self._began + min(self._device) - max(self._host) - MARGIN


def _decodes(step: Step) -> bool:
    return bool(step.plan.counts.max() == 1)
