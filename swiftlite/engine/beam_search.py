"""Beam search: the likeliest continuations as a whole, one step of the engine a token (vLLM's names and scores)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .errors import RequestError
from .outputs import Logprob, RequestOutput
from .request import LoRARequest
from .sampling_params import SamplingParams

Generate = Callable[[list[list[int]], SamplingParams, list[LoRARequest | None]], list[RequestOutput]]


@dataclass
class BeamSearchParams:
    """beam_width sequences are kept at every step, max_tokens steps are made.

    A sequence's score is the sum of its log probabilities / (its length with the prompt, without an end token) **
    length_penalty. ignore_eos: end tokens are tokens like others. temperature is accepted as 0 only: nothing is drawn.
    include_stop_str_in_output changes nothing, as with vLLM's LLM: sequences hold their end token.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        for name in ('beam_width', 'max_tokens'):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RequestError(f'{name} must be an integer of at least 1, got {value!r}.')
        if self.temperature != 0:
            raise RequestError(f'temperature must be 0 for beam search, got {self.temperature!r}.')
        if not isinstance(self.length_penalty, (int, float)) or not abs(self.length_penalty) <= 10:
            raise RequestError(f'length_penalty must be a number between -10 and 10, got {self.length_penalty!r}.')


@dataclass
class BeamSearchSequence:
    """tokens: prompt and continuation; text: of all of them; logprobs: one dict a continued token."""

    tokens: list[int]
    logprobs: list[dict[int, Logprob]]
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: LoRARequest | None = None


@dataclass
class BeamSearchOutput:
    """The best sequences of one prompt, the best first."""

    sequences: list[BeamSearchSequence]


@dataclass
class Beams:
    """The search of one prompt."""

    live: list[BeamSearchSequence]
    done: list[BeamSearchSequence] = field(default_factory=list)


def beam_search(
    prompts: Sequence[list[int]],
    loras: Sequence[LoRARequest | None],
    params: BeamSearchParams,
    generate: Generate,
    eos_token_ids: Sequence[int],
    max_model_len: int,
) -> list[BeamSearchOutput]:
    """Search all prompts together. `generate(prompts, params, loras)` answers with one token each.

    Raises:
        RequestError: a prompt leaves no room for a token.
    """
    for prompt in prompts:
        if len(prompt) >= max_model_len:
            raise RequestError(f'The prompt has {len(prompt)} tokens, but the model takes {max_model_len} in all.')
    ends = frozenset(() if params.ignore_eos else eos_token_ids)
    step = SamplingParams(
        temperature=0, max_tokens=1, logprobs=2 * params.beam_width, ignore_eos=True, detokenize=False
    )

    def score(beam: BeamSearchSequence) -> float:
        length = len(beam.tokens) - (beam.tokens[-1] in ends)
        return beam.cum_logprob / length**params.length_penalty

    searches = [Beams([BeamSearchSequence(list(p), [], lora_request=x)]) for p, x in zip(prompts, loras, strict=True)]
    for _ in range(params.max_tokens):
        open_beams = [b for s in searches for b in s.live if len(b.tokens) < max_model_len]
        if not open_beams:
            break
        outs = generate([b.tokens for b in open_beams], step, [b.lora_request for b in open_beams])
        found = iter(outs)
        for search in searches:
            grown: list[BeamSearchSequence] = []
            for beam in search.live:
                if len(beam.tokens) >= max_model_len:
                    search.done.append(beam)
                    continue
                steps = next(found).outputs[0].logprobs
                assert steps is not None
                for token, entry in steps[0].items():
                    new = BeamSearchSequence(
                        [*beam.tokens, token],
                        [*beam.logprobs, steps[0]],
                        beam.cum_logprob + entry.logprob,
                        lora_request=beam.lora_request,
                    )
                    if token in ends:
                        new.finish_reason = 'stop'
                        search.done.append(new)
                    else:
                        grown.append(new)
            search.live = sorted(grown, key=score, reverse=True)[: params.beam_width]
    outputs = []
    for search in searches:
        best = sorted(search.done + search.live, key=score, reverse=True)[: params.beam_width]
        for beam in best:
            beam.finish_reason = beam.finish_reason or 'length'
        outputs.append(BeamSearchOutput(best))
    return outputs
