"""Runs plans on one device: network, KV cache, batch state, sampler."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Protocol

import numpy as np
import torch

from swiftlite_kernels.step import StepRows, StepTensors

from ...errors import SwiftliteError
from ...layers.context import StepContext, step_context
from ...layers.lora import PAGE, LoRABatch
from ...layers.parallel import TPGroup
from ...layers.vocab_lora import VocabLoRA
from ...models.decoder import Decoder
from ...models.loader import fill_dummy, load_weights
from ..adapters.manager import LoRAManager
from ..config import EngineConfig, ModelConfig, cpu_cache_bytes, resolve_device
from ..plan import StepPlan, StepResult
from .batch import BatchState, StepShape
from .cuda_graph import StepGraphs
from .logprobs import AT_ONCE, DeviceLogprobs, prompt_logprobs
from .sampler import Sampler
from .warm_up import warm_up

LONG_PROMPT = 1024  # tokens from which on torch's attention is used for a prompt


class StepFuture(Protocol):
    """A submitted step's result, which may not be there yet."""

    def done(self) -> bool: ...

    def result(self) -> StepResult: ...


class DeviceResult:
    """Sampled tokens on their way to the host; `done` never waits, `result` does."""

    def __init__(
        self,
        plan: StepPlan,
        tokens: torch.Tensor,
        logprobs: DeviceLogprobs | None,
        prompt: list[list[DeviceLogprobs]],
    ):
        self._plan, self._logprobs, self._prompt = plan, logprobs, prompt
        self._event: torch.cuda.Event | None = None
        self._tokens = tokens
        if tokens.is_cuda:
            self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._tokens.copy_(tokens, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def done(self) -> bool:
        return self._event is None or self._event.query()

    def result(self) -> StepResult:
        if self._event is not None:
            self._event.synchronize()
        tokens = self._tokens.numpy()[: len(self._plan.slots)][self._plan.sample].tolist()
        prompt = [[entry for part in parts for entry in part.read()] for parts in self._prompt]
        return StepResult(self._plan.step, tokens, self._logprobs.read() if self._logprobs else None, prompt)


class ModelRunner:
    """One rank. `submit` queues a plan's work and returns a future; plans run in the order they are submitted."""

    def __init__(self, config: EngineConfig, model: ModelConfig, tp: TPGroup):
        self.config, self.model_config, self.tp = config, model, tp
        self.device = resolve_device(config.device, tp.rank)
        if self.device.startswith('cuda'):
            torch.cuda.set_device(self.device)
        # cuDNN attends to long prompts faster than a kernel that reads the paged cache
        self._library_attention = (
            self.device.startswith('cuda')
            and model.dtype in (torch.bfloat16, torch.float16)
            and all(w is None for w in model.decoder.sliding_windows)
        )
        self._warm: Future[None] | None = None
        if self.device.startswith('cuda'):
            pool = ThreadPoolExecutor(1, 'warm-up')
            self._warm = pool.submit(warm_up, model.decoder, model.dtype, self.device, self._library_attention)
            pool.shutdown(wait=False)
        self.model = Decoder(model.decoder, model.max_model_len, tp, model.dtype, self.device)
        if config.load_format == 'dummy':
            fill_dummy(self.model, config.seed)
        else:
            load_weights(self.model, model.path)
        depth = config.lookahead if config.lookahead is not None else 1
        self.lora: LoRAManager | None = None
        if config.enable_lora:
            self.lora = LoRAManager(
                self.model,
                num_pages(config),
                config.max_lora_rank,
                model.max_num_batched_tokens,
                depth,
                model.dtype,
                self.device,
            )
        rows = model.max_num_seqs
        self.state = BatchState(
            rows, model.max_model_len, model.max_num_batched_tokens, config.block_size, depth, self.device
        )
        self.sampler = Sampler(self.state)
        self.graphs: StepGraphs | None = None
        self.num_blocks = 0

    def fit_blocks(self) -> int:
        """How many KV-cache blocks this rank's memory takes."""
        config, model = self.config, self.model_config
        per_block = (
            sum(2 * a.num_kv_heads * a.head_dim for a in self.model.attentions())
            * config.block_size
            * model.cache_dtype.itemsize
        )
        if config.num_gpu_blocks_override is not None:
            return config.num_gpu_blocks_override
        if self.device.startswith('cuda'):
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info()
            room = free - int(total * (1 - config.gpu_memory_utilization)) - self._activation_bytes()
        else:
            # more than every slot at full length is never used
            room = min(cpu_cache_bytes(), per_block * -(-model.max_model_len // config.block_size) * model.max_num_seqs)
        return max(room // per_block, 0)

    @torch.inference_mode()
    def allocate_cache(self, num_blocks: int) -> None:
        """Give every attention layer its caches, [blocks, block_size, kv_heads, d]; SwiftliteError if too few."""
        need = -(-self.model_config.max_model_len // self.config.block_size)
        if num_blocks < need:
            size = num_blocks * self.config.block_size
            raise SwiftliteError(
                f'The KV cache has room for {size} tokens, fewer than max_model_len {self.model_config.max_model_len}; '
                f'lower --max_model_len to at most {size}, '
                + ('take --kv_cache_dtype fp8, ' if self.config.kv_cache_dtype == 'auto' else '')
                + 'or give the engine more memory.'
            )
        self.num_blocks = num_blocks
        for a in self.model.attentions():
            shape = (num_blocks, self.config.block_size, a.num_kv_heads, a.head_dim)
            a.key_cache = _cache(shape, self.model_config.cache_dtype, self.device)
            a.value_cache = _cache(shape, self.model_config.cache_dtype, self.device)
            a.kv_cache_dtype = self.config.kv_cache_dtype

    @torch.inference_mode()
    def capture(self) -> None:
        """Capture graphs on a GPU, unless enforce_eager."""
        if self._warm is not None:
            self._warm.result()
        if self.device.startswith('cuda') and not self.config.enforce_eager:
            graphs = StepGraphs(
                self.model_config.max_num_seqs, self.model_config.max_num_batched_tokens, self.lora is not None
            )
            graphs.capture(self._captured)
            self.graphs = graphs

    def close(self) -> None:
        """Give up the captured steps, which hold on to the communicators that they use."""
        self.graphs = None

    def _captured(self, shape: StepShape) -> tuple[StepTensors, torch.Tensor, torch.Tensor | None]:
        """What a graph of this shape runs: lengths up to the limit, adapters by what the routing will say.

        A greedy choice is part of it, where no other rank has to be told.
        """
        lora = self.lora.views(shape) if shape.lora and self.lora is not None else None
        limit = self.model_config.max_model_len
        step, logits, _ = self._forward(shape, self.state.row_views(shape.rows), shape.tokens, limit, lora)
        if self.tp.size > 1:
            return step, logits, None
        tokens = self.sampler.greedy(logits)
        self.state.write_sampled(step.write_at, tokens)
        return step, logits, tokens

    @torch.inference_mode()
    def submit(self, plan: StepPlan) -> StepFuture:
        """Queue one step."""
        self.state.update(plan)
        if self.lora is not None and plan.adapters:
            self.lora.load(plan.adapters)
        adapters = self.state.adapters[plan.slots]
        adapted = self.lora is not None and bool(adapters.any())
        vocab = self.lora.vocab(plan, adapters) if self.lora is not None and adapted else None
        graphs = self.graphs if vocab is None and not plan.prompt_rows else None
        captured = graphs.shape(plan, adapted) if graphs else None
        shape = captured or StepShape(
            plan.num_tokens, len(plan.slots), plan.num_tokens > len(plan.slots), plan.shared[2] > 0, adapted
        )
        rows = self.state.rows(plan, shape.rows)
        lora = None
        if adapted:
            assert self.lora is not None
            lora = self.lora.batch(plan, adapters, shape, captured is not None)
        if captured is not None:
            assert self.graphs is not None
            done = self.graphs.replay(captured)
            step, logits = done.step, done.logits
            if done.tokens is not None and self.sampler.is_greedy(plan):
                return DeviceResult(plan, done.tokens, None, [])
        else:
            longest = int((plan.starts + plan.counts).max())
            step, logits, hidden = self._forward(shape, rows, int(plan.counts.max()), longest, lora, plan, vocab)
        prompt: list[list[DeviceLogprobs]] = []
        if plan.prompt_rows:
            rows_at_once = max(1, min(self.state.tokens.shape[0], AT_ONCE // self.model_config.vocab_size))
            to_logits = partial(self._logits, vocab)
            prompt = prompt_logprobs(hidden, self.state.tokens, plan, rows_at_once, to_logits)
        if not plan.sample.any():  # prefill chunks only
            return DeviceResult(plan, step.last, None, prompt)
        tokens, logprobs = self.sampler(logits, plan, rows, step)
        tokens = self.tp.broadcast(tokens)
        self.state.write_sampled(step.write_at, tokens)
        return DeviceResult(plan, tokens, logprobs, prompt)

    def _forward(
        self,
        shape: StepShape,
        rows: StepRows,
        max_query_len: int,
        longest: int,
        lora: tuple[LoRABatch, LoRABatch | None] | None = None,
        plan: StepPlan | None = None,
        vocab: VocabLoRA | None = None,
    ) -> tuple[StepTensors, torch.Tensor, torch.Tensor]:
        """Inputs of the step, every row's logits [R, V] after its last token, and hidden states.

        lora: adapters of the tokens, and of the rows where those are computed alone.
        Hidden states are those of all tokens [T, hidden] where the plan asks for more than the rows' last ones.
        plan: what is computed, None in a graph, which must hold for every plan.
        """
        step = self.state.prepare(rows, shape, longest)
        few = shape.few and not (plan and plan.prompt_rows)
        dense, sparse_lens = self._dense(plan, step) if plan is not None else ((), None)
        context = StepContext(
            rows.cu_seqlens, step.seq_lens, step.block_tables, step.slot_mapping, max_query_len if shape.mixed else 1,
            longest, lora[0] if lora else None,
            shared=self.state.shared(shape.rows) if shape.shared else None,
            rows=step.last if few else None,
            row_starts=self.state.row_starts[: shape.rows + 1],
            dense=dense,
            sparse_lens=sparse_lens,
            row_lora=lora[1] if lora else None,
            vocab=vocab,
        )  # fmt: skip
        with step_context(context):
            hidden = self.model(step.input_ids, step.positions)
        return step, self._logits(vocab, hidden if few else hidden[step.last]), hidden

    def _logits(self, vocab: VocabLoRA | None, hidden: torch.Tensor, row: int | None = None) -> torch.Tensor:
        """hidden [R, hidden] of all rows, or of one, → [R, V] with the adapters of the output layer."""
        logits = self.model.logits(hidden)
        if vocab is not None:
            vocab.add_logits(hidden, logits, row)
        return logits

    def _dense(self, plan: StepPlan, step: StepTensors) -> tuple[tuple[tuple[int, int], ...], torch.Tensor | None]:
        """Long prompts that have nothing in the cache yet, and the lengths of the others (StepContext)."""
        if not self._library_attention:
            return (), None
        picked = np.flatnonzero((plan.starts == 0) & (plan.counts >= LONG_PROMPT))
        if not len(picked):
            return (), None
        firsts = np.cumsum(plan.counts) - plan.counts
        dense = tuple(zip(firsts[picked].tolist(), plan.counts[picked].tolist(), strict=True))
        if len(picked) == len(plan.slots):
            return dense, None
        lens = step.seq_lens.clone()
        lens[torch.from_numpy(picked).to(lens.device)] = 0
        return dense, lens

    def _activation_bytes(self) -> int:
        """What one step may need beside weights and cache."""
        c, m = self.model_config.decoder, self.model_config
        per_token = (
            4 * c.hidden_size + 3 * c.intermediate_size // self.tp.size + c.num_heads * c.head_dim
        ) * m.dtype.itemsize
        return per_token * m.max_num_batched_tokens + 3 * 4 * c.vocab_size * m.max_num_seqs + 2**29


def num_pages(config: EngineConfig) -> int:
    """Rank pages for max_loras adapters of max_lora_rank; adapters of other ranks share them as they fit."""
    return config.max_loras * -(-config.max_lora_rank // PAGE)


def _cache(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Zeros; on a CPU memory that is zeroed when first touched, so that a large cache costs no start-up time."""
    if device != 'cpu':
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
