"""When the next step is planned."""

from types import SimpleNamespace

import numpy as np
import pytest

from swiftlite.engine import pacing
from swiftlite.engine.pacing import MARGIN, Pacer


def step(rows, prompt=0):
    counts = np.ones(rows, dtype=np.int32)
    counts[0] += prompt
    return SimpleNamespace(rows=[None] * rows, plan=SimpleNamespace(counts=counts))


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(pacing.time, 'perf_counter', lambda: now.value)
    return now


def steady(clock, pacer, rows=4, seconds=0.004, host=0.001, steps=12):
    for _ in range(steps):
        pacer.planned(host)
        clock.value += seconds
        pacer.finished(step(rows), step(rows), late=False)


def test_a_steady_device_is_given_its_next_step_just_in_time(clock):
    pacer = Pacer()
    assert pacer.due == 0
    steady(clock, pacer)
    assert pacer.due == pytest.approx(clock.value + 0.004 - 0.001 - MARGIN)
    pacer.planned(0.003)  # a slow one is reckoned with
    assert pacer.due == pytest.approx(clock.value + 0.004 - 0.003 - MARGIN)


def test_the_shortest_of_the_last_steps_counts(clock):
    pacer = Pacer()
    steady(clock, pacer)
    steady(clock, pacer, seconds=0.005, steps=1)
    assert pacer.due == pytest.approx(clock.value + 0.004 - 0.001 - MARGIN)


@pytest.mark.parametrize('following', [None, step(4, prompt=50), step(20)], ids=['nothing', 'a prompt', 'others'])
def test_no_waiting_where_the_end_is_not_known(clock, following):
    pacer = Pacer()
    steady(clock, pacer)
    pacer.finished(step(4), following, late=False)
    assert pacer.due == 0


def test_a_prompt_changes_nothing_for_the_steps_after_it(clock):
    pacer = Pacer()
    steady(clock, pacer)
    clock.value += 0.020
    pacer.finished(step(5, prompt=200), step(5), late=False)
    assert pacer.due == pytest.approx(clock.value + 0.004 - 0.001 - MARGIN)


def test_a_device_that_had_to_wait_is_not_made_to_wait_again(clock):
    pacer = Pacer()
    steady(clock, pacer)
    pacer.finished(step(4), step(4), late=True)
    assert pacer.due == 0
    steady(clock, pacer, steps=1)
    assert pacer.due > 0


def test_a_busy_host_never_waits(clock):
    pacer = Pacer()
    steady(clock, pacer, seconds=0.001, host=0.0008)
    assert pacer.due < clock.value
