"""The engine: requests in, tokens out, one step at a time."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import SwiftliteError
from .adapters.copies import HostCopies
from .adapters.library import AdapterLibrary
from .adapters.table import AdapterTable
from .block_manager import BlockManager
from .config import EngineConfig, host_adapter_bytes, resolve_model
from .errors import EngineDeadError, RequestError
from .grammar.params import StructuredOutputsParams
from .intake import GrammarIntake
from .outputs import SequenceOutput
from .pacing import Pacer
from .planner import Step
from .request import EngineRequest, LoRARequest
from .runner.executor import Executor
from .runner.model_runner import StepFuture, num_pages
from .scheduler import Scheduler
from .sequence import Sequence, Status
from .shared_prefix import PrefixFinder


class Engine:
    """Synchronous core: `add_request`, then `step` until `has_work` is False.

    Up to `lookahead` steps are submitted before the oldest one's tokens are read, so on a GPU the host plans a step
    while the device computes another.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.model_config = resolve_model(config)
        gpu = self.model_config.device.startswith('cuda')
        self.lookahead = config.lookahead if config.lookahead is not None else int(gpu)
        self.executor = Executor(config, self.model_config)
        self.blocks = BlockManager(self.executor.num_blocks, config.block_size, config.enable_prefix_caching)
        self.adapters = AdapterTable(num_pages(config) if config.enable_lora else 0)
        copies = HostCopies(self.adapters, config.max_cpu_loras, host_adapter_bytes(config))
        self.library = AdapterLibrary(self.executor, self.adapters, copies)
        self.scheduler = Scheduler(
            self.blocks,
            self.adapters,
            self.model_config.max_num_seqs,
            self.model_config.max_num_batched_tokens,
            self.model_config.vocab_size,
            # only kernels on a GPU read a shared prefix once
            PrefixFinder(config.block_size) if gpu and config.enable_prefix_caching else None,
        )
        self.intake = GrammarIntake(self.model_config, not config.skip_tokenizer_init)
        self._sequences: dict[str, Sequence] = {}
        self._inflight: deque[tuple[Step, StepFuture]] = deque()
        self._early: list[SequenceOutput] = []  # known between two steps
        self._pacer = Pacer()
        self._stuck = False  # the last step left nothing to wait for on the device
        self._seeds = random.Random(config.seed)
        self._dead: str | None = None
        self.generated = 0

    @property
    def has_work(self) -> bool:
        waits = self.scheduler.has_work or len(self.intake) > 0 or self.library.busy
        return waits or bool(self._inflight or self._early)

    @property
    def due(self) -> float:
        """When `step` should be called again, by time.perf_counter(), to take in what comes until then; 0: now."""
        alone = len(self._inflight) == self.lookahead == 1 and not self.scheduler.waiting and not self._early
        return self._pacer.due if alone else 0.0

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request; RequestError says why it cannot run, and nothing changed.

        An adapter that is not known is loaded while others run; the request waits for it, and fails with it.
        """
        self._check_request(request)
        if request.lora is not None:
            self._need_lora()
        params = request.params
        seed = params.seed if params.seed is not None else self._seeds.getrandbits(63)
        ends = frozenset(() if params.ignore_eos else self.model_config.eos_token_ids)
        adapter = 0 if request.lora is None else self.library.uid_for(request.lora)
        seq = Sequence(request, seed, ends, self.model_config.max_model_len, adapter)
        if self.blocks.blocks_for(seq.max_len) > self.blocks.num_blocks:
            raise RequestError(
                f'The request may grow to {seq.max_len} tokens, but the KV cache holds '
                f'{self.blocks.num_blocks * self.blocks.block_size}; lower max_tokens or give the engine more memory.'
            )
        ready = self.intake.add(seq)
        self._sequences[request.request_id] = seq
        self.scheduler.enter(seq)
        if ready:
            self.scheduler.add(seq)

    def compile_structure(self, structure: StructuredOutputsParams) -> None:
        """Compile a grammar now, so that requests with it start at once; RequestError says what is wrong with it."""
        self.intake.compile(structure)

    def abort(self, request_id: str) -> bool:
        """End a request now; False if it is not here (any more)."""
        seq = self._sequences.pop(request_id, None)
        if seq is None:
            return False
        self.intake.remove(request_id)
        if seq.status is Status.FINISHED:  # its end was not told yet
            self._early = [out for out in self._early if out.request_id != request_id]
        else:
            self.scheduler.finish(seq)
        self._forget_dropped()
        return True

    def step(self) -> list[SequenceOutput]:
        """Submit a step if one can be planned, then take in what is ready. EngineDeadError if a rank died."""
        if self._dead is not None:
            raise EngineDeadError(self._dead)
        outputs = self._take_compiled()
        try:
            outputs += self._take_read(wait=self._stuck)
            began = time.perf_counter()
            step = self.scheduler.schedule()
            if step is not None:
                self._inflight.append((step, self._submit(step)))
                self._pacer.planned(time.perf_counter() - began)
                for load in step.plan.adapters:
                    self.library.uploaded(load.uid)
            self.library.read_ahead(self.scheduler.waiting)
            self._stuck = not self._inflight
            must = step is None  # nothing to plan until a result is known
            while self._inflight and (must or len(self._inflight) > self.lookahead or self._inflight[0][1].done()):
                oldest, future = self._inflight[0]
                late, result = future.done(), future.result()
                self._inflight.popleft()  # not before: Ctrl-C ends the waiting
                self._pacer.finished(oldest, self._inflight[0][0] if self._inflight else None, late)
                outputs += self.scheduler.process(oldest, result)
                must = False
        except EngineDeadError as error:
            self._dead = str(error)
            raise
        for out in outputs:
            self.generated += len(out.token_ids)
            if out.finish_reason is not None:
                del self._sequences[out.request_id]
        self._forget_dropped()
        return outputs

    def load_lora(self, request: LoRARequest, done: Callable[[str | None], None]) -> None:
        """Load an adapter while others run, or replace the one of the same id.

        A later `step` calls `done` with None, or with the reason why it does not fit this model.
        """
        self._need_lora()
        self.library.load(request, done)

    def add_lora(self, request: LoRARequest) -> None:
        """Load an adapter, or replace the one of the same id; SwiftliteError if it does not fit this model."""
        self.add_loras([request])

    def add_loras(self, requests: Iterable[LoRARequest]) -> None:
        """Load several adapters; SwiftliteError for the first that does not fit, and the others are there."""
        found: list[str | None] = []
        requests = list(requests)
        for request in requests:
            self.load_lora(request, found.append)
        while len(found) < len(requests):
            self._early = self._take_read(wait=True)
        for error in found:
            if error is not None:
                raise SwiftliteError(error)

    def add_missing(self, requests: Iterable[LoRARequest | None]) -> None:
        """Load those whose ids are new, each once."""
        missing = {r.lora_int_id: r for r in requests if r is not None and r.lora_int_id not in self.adapters}
        self.add_loras(missing.values())

    def remove_lora(self, int_id: int) -> bool:
        """Forget an adapter; what waits for it or runs on it finishes. False if the id is unknown."""
        return self.library.remove(int_id)

    def stats(self) -> dict[str, Any]:
        """Counters and gauges for logs and metrics, and the names of the adapters that requests run on or wait for."""
        s = self.scheduler
        running, waiting = {seq.adapter for seq in s.running}, set(s.waiting.adapters())
        return {
            'num_running': len(s.running),
            'num_waiting': len(s.waiting) + len(self.intake),
            'blocks_used': self.blocks.num_used,
            'blocks_total': self.blocks.num_blocks,
            'prefix_queries': self.blocks.queries,
            'prefix_hits': self.blocks.hits,
            'num_preemptions': s.num_preemptions,
            'generated_tokens': self.generated,
            'adapters': len(self.adapters),
            'adapters_on_device': self.adapters.num_resident,
            'adapters_in_memory': self.library.num_copies,
            'adapter_pages_used': self.adapters.pages_used,
            'adapter_reads': self.library.reads,
            'adapter_uploads': self.library.uploads,
            'max_adapters': self.config.max_loras if self.config.enable_lora else 0,
            'running_adapters': self.adapters.names(running),
            'waiting_adapters': self.adapters.names(waiting),
        }

    def shutdown(self) -> None:
        """Free other ranks; the engine is unusable afterwards."""
        self._dead = 'The engine was shut down.'
        self.intake.shutdown()
        self.executor.shutdown()

    def _submit(self, step: Step) -> StepFuture:
        """Submit a step; one that breaks off, by Ctrl-C or for lack of memory, has not been."""
        try:
            return self.executor.submit(step.plan)
        except BaseException:
            if self.executor.workers:  # which run it
                self._dead = 'A step broke off on one rank and not on the others; start the engine again.'
            self.scheduler.withdraw(step)
            raise

    def _take_compiled(self) -> list[SequenceOutput]:
        """Let sequences run whose grammars are ready; returns the ends of those whose grammars are wrong."""
        if not len(self.intake):
            return []
        good, bad = self.intake.ready(wait=not self._inflight and not self.scheduler.has_work)
        for seq in good:
            self.scheduler.add(seq)
        for out in bad:
            self.scheduler.finish(self._sequences[out.request_id])
        return bad

    def _take_read(self, wait: bool) -> list[SequenceOutput]:
        """Bring in adapters that were read; returns the ends of sequences whose adapter cannot be had."""
        outputs, self._early = self._early, []
        for uid, error in self.library.take(wait).items():
            outputs += self.scheduler.fail(uid, error)
        return outputs

    def _check_request(self, request: EngineRequest) -> None:
        ids, model = request.prompt_token_ids, self.model_config
        if request.request_id in self._sequences:
            raise RequestError(f"request id '{request.request_id}' is already running.")
        if not ids:
            raise RequestError('The prompt is empty.')
        if len(ids) >= model.max_model_len:
            raise RequestError(
                f'The prompt has {len(ids)} tokens, but the model takes {model.max_model_len} in all; '
                'shorten it to leave room for at least one.'
            )
        low, high = min(ids), max(ids)
        if low < 0 or high >= model.vocab_size:
            raise RequestError(
                f'The prompt holds token id {low if low < 0 else high}, '
                f'but the vocabulary has {model.vocab_size} tokens.'
            )
        request.params.validate_vocab(model.vocab_size)
        request.params.validate_logprobs(self.config.max_logprobs)
        if request.params.bad_words and request.params.bad_words_token_ids is None:
            raise RequestError('bad_words needs its token ids; call update_from_tokenizer on the sampling parameters.')

    def _need_lora(self) -> None:
        if not self.config.enable_lora:
            raise RequestError(
                'This engine was started without adapters; start it with enable_lora (--enable_lora true).'
            )

    def _forget_dropped(self) -> None:
        if self.scheduler.dropped_adapters:
            self.library.forget(self.scheduler.dropped_adapters)
            self.scheduler.dropped_adapters = []
