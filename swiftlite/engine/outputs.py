"""What leaves the engine (vLLM's shapes)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .request import LoRARequest


@dataclass
class Logprob:
    """Natural log-probability of a token under the raw logits; rank 1 is the most likely."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class TokenLogprobs:
    """One step's: the chosen token's (logprob, rank) and the best ones in order."""

    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


@dataclass
class SequenceOutput:
    """New tokens of one request from one step, before detokenization."""

    request_id: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None  # stop | length | abort | error
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0  # with the first and the last output
    error: str | None = None
    complete: bool = False  # it ended with its grammar: the last token is text
    prompt_logprobs: list[TokenLogprobs] | None = None  # of every prompt token but the first, with the first output

    @property
    def plain(self) -> bool:
        """One more token, and nothing else to tell."""
        return (
            self.finish_reason is None
            and self.logprobs is None
            and self.prompt_logprobs is None
            and not self.num_cached_tokens
            and len(self.token_ids) == 1
        )


def pack(outputs: list[SequenceOutput]) -> tuple[list[str], list[int], list[SequenceOutput]]:
    """(ids of requests with a plain token each, those tokens, the other outputs): a hundredth of the bytes.

    The plain ones are read first. A request with several outputs, because two steps ended together, keeps their order.
    """
    ids: list[str] = []
    tokens: list[int] = []
    rest: list[SequenceOutput] = []
    more: set[str] = set()  # requests in `rest`
    for out in outputs:
        if out.plain and out.request_id not in more:
            ids.append(out.request_id)
            tokens.append(out.token_ids[0])
        else:
            rest.append(out)
            more.add(out.request_id)
    return ids, tokens, rest


@dataclass
class CompletionOutput:
    """One answer. finish_reason: None while it runs, else stop, length, abort or error.

    stop_reason: the stop string or stop token id that ended it, None for the model's own end token and the end of a
    grammar; with error, the reason in words.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: LoRARequest | None = None


@dataclass
class RequestOutput:
    """A request's answers so far (CUMULATIVE), or only what is new (DELTA).

    prompt_logprobs: a dict for every prompt token, None for the first one; None where they were not asked for.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    num_cached_tokens: int = 0
    lora_request: LoRARequest | None = None
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
