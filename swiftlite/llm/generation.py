"""How an engine answers, in transformers' words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import SwiftliteError, nearest
from swiftlite.template import Template

MAX_NEW_TOKENS = 2048  # as `swiftlite infer`
SAME = (  # in SamplingParams under the same name
    'temperature',
    'top_k',
    'top_p',
    'min_p',
    'repetition_penalty',
    'presence_penalty',
    'frequency_penalty',
    'seed',
    'ignore_eos',
    'skip_special_tokens',
)


@dataclass
class GenerationConfig:
    """transformers' names; every field may be changed, and an unknown one is an AttributeError.

    max_new_tokens: at most that many, and what the context has left; None: all that it has left. temperature 0 or
    do_sample False takes the likeliest token; do_sample None follows the temperature. stop strings and
    stop_token_ids end an answer beside those of the template. num_beams is 1.
    """

    max_new_tokens: int | None = MAX_NEW_TOKENS
    min_new_tokens: int = 0
    do_sample: bool | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    num_beams: int = 1
    seed: int | None = None
    stop: Sequence[str] | str | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True

    def __setattr__(self, name: str, value: Any) -> None:
        names = [f.name for f in fields(self)]
        if name not in names:
            raise AttributeError(f"generation_config has no '{name}'{nearest(name, names)}")
        super().__setattr__(name, value)

    def sampling_params(self, template: Template, prompt_tokens: int, max_model_len: int) -> SamplingParams:
        """For a prompt of that many tokens; RequestError names the field that is out of range."""
        if self.num_beams != 1:
            raise SwiftliteError(f'num_beams is {self.num_beams!r}, but there is no beam search here: leave it at 1')
        values = {name: getattr(self, name) for name in SAME}
        if self.do_sample is False:
            values['temperature'] = 0.0
        elif self.do_sample and not self.temperature:
            values['temperature'] = 1.0
        left = max(max_model_len - prompt_tokens, 1)  # a prompt that leaves no room is refused by the engine
        wanted = self.max_new_tokens
        stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        return SamplingParams(
            **values,
            max_tokens=min(wanted, left) if isinstance(wanted, int) else left if wanted is None else wanted,
            min_tokens=self.min_new_tokens,
            stop=[*stop, *template.stop_strings],
            stop_token_ids=[*(self.stop_token_ids or ()), *(() if self.ignore_eos else template.stop_token_ids)],
        )
