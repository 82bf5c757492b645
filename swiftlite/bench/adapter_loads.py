"""What loading adapters costs beside running sequences, and whether memory comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..engine.engine import Engine
from ..engine.request import EngineRequest, LoRARequest
from ..engine.sampling_params import SamplingParams
from .memory import memory
from .report import show_spreads, spread
from .workload import FIRST_ID

NUM_LOADED = 12  # adapters that come and go
RUNNING = 64  # sequences beside which they do
ALONE, BEFORE = 300, 50  # steps without them, and steps before anything is timed
ROUNDS = 4  # times that all are read and uploaded
AFTER_REQUEST = 12  # steps
ASK_EVERY = 50  # loads
SAY_EVERY = 5.0  # seconds


def loads(engine: Engine, adapters: Sequence[LoRARequest], count: int, vocab: int) -> dict[str, Any]:
    """Step times while adapters are read and uploaded; memory before and after `count` loads and unloads.

    Prints how far it is. Ctrl-C among the loads ends them: `loads` says how many there were.
    adapters: as many as fit on the device together, at most.
    """
    steps = Steps(engine, vocab)
    for lora in adapters:
        engine.remove_lora(lora.lora_int_id)
    try:
        steps.take(BEFORE)
        alone = steps.take(ALONE)
        reading, uploading, there = list[float](), list[float](), list[float]()
        seconds, uploads = 0.0, engine.stats()['adapter_uploads']
        for _ in range(ROUNDS):
            done: list[str | None] = []
            start = time.perf_counter()
            for lora in adapters:
                engine.load_lora(lora, done.append)
            while len(done) < len(adapters):
                reading += steps.take(1)
            seconds += time.perf_counter() - start
            for found in (uploading, there):  # the same requests once more, when nothing has to be uploaded
                for lora in adapters:
                    steps.ask(lora)
                    found += steps.take(AFTER_REQUEST)
            for lora in adapters:
                engine.remove_lora(lora.lora_int_id)
    finally:
        steps.end()
    told: dict[str, Any] = {
        'running': steps.running,
        'reads': ROUNDS * len(adapters),
        'uploads': engine.stats()['adapter_uploads'] - uploads,
        'step_ms_alone': spread(alone),
        'step_ms_while_read': spread(reading),
        'step_ms_with_uploads': spread(uploading),
        'step_ms_without_uploads': spread(there),
        'seconds_per_read_beside': round(seconds / ROUNDS / len(adapters), 6),
    }
    _show_steps(told)
    engine.add_loras(adapters)
    before = memory(engine)
    loaded, each = _load_and_unload(engine, steps, adapters, count)
    return told | {
        'loads': loaded,
        'seconds_per_load': round(each, 6),
        'memory_before': before,
        'memory_after': memory(engine),
    }


def _load_and_unload(engine: Engine, steps: Steps, adapters: Sequence[LoRARequest], count: int) -> tuple[int, float]:
    """How many loads there were, and seconds of each."""
    start = said = time.perf_counter()
    done = 0
    try:
        for index in range(count):
            lora = adapters[index % len(adapters)]
            engine.remove_lora(lora.lora_int_id)
            engine.add_lora(lora)
            if index % ASK_EVERY == 0:
                steps.ask(lora)
                while engine.has_work:
                    engine.step()
            done = index + 1
            if time.perf_counter() - said > SAY_EVERY:
                said = time.perf_counter()
                print(f'{done:,} of {count:,} loads, {(said - start) / done * 1e3:.1f} ms each', flush=True)
    except KeyboardInterrupt:
        if not done:
            raise
    return done, (time.perf_counter() - start) / done


def show_loads(found: dict[str, Any]) -> None:
    """On the terminal."""
    before, after = found['memory_before'], found['memory_after']
    changes = ', '.join(f'{name} {before[name]} → {after[name]}' for name in before if before[name] is not None)
    print(f'{found["loads"]:,} loads and unloads, {found["seconds_per_load"] * 1e3:.1f} ms each: {changes}', flush=True)


def _show_steps(found: dict[str, Any]) -> None:
    names = {
        'alone': 'step_ms_alone',
        'while adapters are read': 'step_ms_while_read',
        'requests with uploads': 'step_ms_with_uploads',
        'requests without': 'step_ms_without_uploads',
    }
    show_spreads({f'steps of {found["running"]}, {name}': found[key] for name, key in names.items()})


class Steps:
    """Sequences that always run, one for each that ends, and the times of their steps."""

    def __init__(self, engine: Engine, vocab: int):
        self._engine = engine
        self.running = min(RUNNING, engine.model_config.max_num_seqs // 2 or 1)
        self._ids = [FIRST_ID + index % (vocab - FIRST_ID) for index in range(32)]
        self._added = 0
        self._alive: set[str] = set()

    def take(self, count: int) -> list[float]:
        """Seconds of each of the next steps."""
        found = []
        for _ in range(count):
            while sum(1 for name in self._alive if name.startswith('long')) < self.running:
                self._add('long', 6000, None)
            start = time.perf_counter()
            outputs = self._engine.step()
            found.append(time.perf_counter() - start)
            self._alive -= {out.request_id for out in outputs if out.finish_reason is not None}
        return found

    def ask(self, lora: LoRARequest) -> None:
        """A short request for an adapter."""
        self._add('short', 8, lora)

    def end(self) -> None:
        """Break off what runs."""
        for name in self._alive:
            self._engine.abort(name)
        self._alive.clear()
        while self._engine.has_work:
            self._engine.step()

    def _add(self, kind: str, tokens: int, lora: LoRARequest | None) -> None:
        name, most = f'{kind}-{self._added}', self._engine.model_config.max_model_len - len(self._ids)
        params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=min(tokens, most), detokenize=False)
        self._engine.add_request(EngineRequest(name, self._ids, params, lora))
        self._alive.add(name)
        self._added += 1
