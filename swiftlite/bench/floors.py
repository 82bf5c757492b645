"""The least time a workload can take: products at the measured rate, weights and keys read at the measured speed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..models.config import DecoderConfig
from .workload import Request


@dataclass(frozen=True)
class Device:
    """What a floor is computed with: a second's bytes and floating-point operations, and the engine's limits."""

    read_bytes: float
    flops: float
    itemsize: int
    max_num_seqs: int
    max_num_batched_tokens: int


def floor_seconds(model: DecoderConfig, device: Device, requests: Sequence[Request]) -> float:
    """Seconds for all requests at once, by simulation of the steps; nothing but the figures of `device` costs time.

    A step takes the longer of its products and its reads: all weights but the embedding, and the keys and values of
    the running requests. What all prompts have in common is computed and read once. Adapters cost nothing.
    """
    shape = _Shape.of(model, device.itemsize)
    head = common_head(requests)
    waiting = deque((len(r.prompt) - head, r.output_len) for r in requests)
    ends: list[int] = []  # steps at which running requests are done
    prefilling, output = (head, 0) if head else (0, 0)  # tokens left of the prompt that is being read; its reply
    if not head:
        prefilling, output = waiting.popleft()
    own, step, seconds = 0, 0, 0.0  # own: tokens in the cache beside the common ones
    leaving: dict[int, int] = {}  # step → tokens that are given back
    position = 0  # in the prompt that is being read
    first = bool(head)
    while prefilling or waiting or ends:
        step += 1
        running = len(ends)
        tokens, products, sampled = running, 0.0, running
        products += shape.attention * (own + running * head)
        reads = shape.weights + shape.cache * (own + (head if running else 0))
        own += running
        while tokens < device.max_num_batched_tokens and len(ends) < device.max_num_seqs:
            if not prefilling:
                if not waiting:
                    break
                prefilling, output = waiting.popleft()
                position = head
            chunk = min(prefilling, device.max_num_batched_tokens - tokens)
            products += shape.attention * chunk * (position + chunk / 2)
            position, prefilling, tokens = position + chunk, prefilling - chunk, tokens + chunk
            if prefilling:
                break
            if first:
                first = False
                continue
            sampled += 1
            if output > 1:
                heapq.heappush(ends, step + output - 1)
                own += position - head
                leaving[step + output - 1] = leaving.get(step + output - 1, 0) + position - head + output - 1
        products += shape.linear * tokens + shape.lm_head * sampled
        seconds += max(products / device.flops, reads / device.read_bytes)
        while ends and ends[0] <= step:
            heapq.heappop(ends)
        own -= leaving.pop(step, 0)
    return seconds


def common_head(requests: Sequence[Request]) -> int:
    """How many tokens at their beginning all prompts have in common, at least one short of the shortest; 0 of one."""
    if len(requests) < 2:
        return 0
    low, high = min(r.prompt for r in requests), max(r.prompt for r in requests)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(same, min(len(r.prompt) for r in requests) - 1)


@dataclass(frozen=True)
class _Shape:
    weights: int  # bytes of a step
    cache: int  # bytes of a token
    linear: int  # operations of a token
    lm_head: int
    attention: int  # operations of a token for each token before it

    @classmethod
    def of(cls, model: DecoderConfig, itemsize: int) -> _Shape:
        layer = sum(a * b for a, b in model.linear_sizes.values())
        head = model.hidden_size * model.vocab_size
        return cls(
            weights=(layer * model.num_layers + head) * itemsize,
            cache=2 * model.num_layers * model.num_kv_heads * model.head_dim * itemsize,
            linear=2 * layer * model.num_layers,
            lm_head=2 * head,
            attention=4 * model.num_layers * model.num_heads * model.head_dim,
        )
