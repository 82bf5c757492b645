"""A request while it is in the engine."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

from .grammar.constraint import Constraint
from .outputs import TokenLogprobs
from .request import EngineRequest


class Status(Enum):
    NEW = -1
    WAITING = 0
    RUNNING = 1
    FINISHED = 2


class Sequence:
    """Token ids known so far and how far the submitted steps have got.

    A step is planned before the last one's result is known: `pending` counts sampled tokens that exist on the device
    only. Positions [0, computed) have their keys and values written by submitted steps.
    """

    def __init__(self, request: EngineRequest, seed: int, ends: frozenset[int], max_len: int, adapter: int):
        self.request, self.params = request, request.params
        self.request_id = request.request_id
        self.tokens = list(request.prompt_token_ids)
        self.prompt_len = len(self.tokens)
        self.seed, self.adapter = seed, adapter
        self.ends = ends  # the model's own end tokens
        self.stop_ids = ends | frozenset(self.params.stop_token_ids or ())
        limit = max_len if self.params.max_tokens is None else min(self.prompt_len + self.params.max_tokens, max_len)
        self.max_len = limit
        self.status = Status.NEW
        self.arrival = 0  # its place among all that have waited
        self.refused = 0  # the step from which on it has waited for rank pages; 0: it has not
        self.slot = -1
        self.pending = 0
        self.computed = 0
        self.cached = -1  # prompt tokens found in the prefix cache at first admission
        self.blocks: list[int] = []
        self.capacity = 0  # tokens that `blocks` hold
        self.full_at = 0  # length at which one more of `blocks` can be in the prefix cache
        self.sent_blocks = 0  # how many of `blocks` the workers know
        self.committed = 0  # how many of `blocks` are in the prefix cache
        self.chain: Hashable = None  # the last committed block's key number, or the root
        self.constraint: Constraint | None = None  # then a step needs to know the token before it
        self.prompt_logprobs: list[TokenLogprobs] = []  # of the prompt's second and later tokens, until they are sent
        self.prompt_known = 0  # how many of them are known

    @property
    def total(self) -> int:
        """Tokens, those in flight included."""
        return len(self.tokens) + self.pending

    @property
    def num_outputs(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def is_plain(self) -> bool:
        """Nothing but tokens is asked for, and no grammar decides on them."""
        return self.params.logprobs is None and self.params.prompt_logprobs is None and self.constraint is None

    @property
    def wants_prompt(self) -> bool:
        """Log probabilities of the prompt are still missing."""
        return self.params.prompt_logprobs is not None and self.prompt_known < self.prompt_len - 1

    def finish_reason(self) -> tuple[str | None, int | None]:
        """(reason, stop token id unless it is the model's own end) after the last known token, or (None, None)."""
        last = self.tokens[-1]
        if last not in self.stop_ids and len(self.tokens) < self.max_len:
            return None, None
        if self.num_outputs >= self.params.min_tokens and last in self.stop_ids:
            return 'stop', (None if last in self.ends else last)
        if len(self.tokens) >= self.max_len:
            return 'length', None
        return None, None
