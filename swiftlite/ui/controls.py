"""The panel of settings: system prompt and sampling, with the checkpoint's values at first."""

from __future__ import annotations

from typing import Any

import gradio as gr

from swiftlite.errors import SwiftliteError
from swiftlite.ui.partner import Profile, Sampling
from swiftlite.ui.texts import Texts

UNKNOWN_LIMIT = 32_768  # tokens, for a server that does not tell


class Controls:
    """Components of the panel, made in the Blocks that is open. `inputs` go to `sampling` in their order."""

    def __init__(self, profile: Profile, texts: Texts) -> None:
        own = profile.sampling
        self._profile = profile
        self.system = gr.Textbox(
            label=texts.system,
            info=texts.system_info,
            placeholder=profile.system or texts.system_none,
            lines=3,
            max_lines=8,
            visible=profile.chats,
            elem_id='system',
        )
        self.thinking = gr.Checkbox(
            bool(own.thinking), label=texts.thinking, visible=profile.thinking == 'optional', elem_id='thinking'
        )
        self.temperature = gr.Slider(
            0,
            max(2.0, own.temperature),
            own.temperature,
            step=0.01,
            label=texts.temperature,
            info=texts.temperature_info,
            elem_id='temperature',
        )
        self.top_p = gr.Slider(0.01, 1, own.top_p, step=0.01, label=texts.top_p)
        self.top_k = gr.Slider(0, max(200, own.top_k), own.top_k, step=1, label=texts.top_k, info=texts.top_k_info)
        self.penalty = gr.Slider(
            min(1.0, own.repetition_penalty),
            max(2.0, own.repetition_penalty),
            own.repetition_penalty,
            step=0.01,
            label=texts.penalty,
            info=texts.penalty_info,
        )
        limit = profile.limit or UNKNOWN_LIMIT
        self.max_tokens = gr.Slider(
            1, limit, min(own.max_tokens, limit), step=1, label=texts.max_tokens, elem_id='max-tokens'
        )
        self.seed = gr.Number(None, label=texts.seed, info=texts.seed_info, precision=0, elem_id='seed')
        self._thinks = profile.thinking == 'optional'

    @property
    def inputs(self) -> list[Any]:
        return [
            self.temperature,
            self.top_p,
            self.top_k,
            self.penalty,
            self.max_tokens,
            self.seed,
            self.thinking,
        ]

    def sampling(
        self,
        temperature: float,
        top_p: float,
        top_k: float,
        penalty: float,
        max_tokens: float,
        seed: float | None,
        thinking: bool,
    ) -> Sampling:
        """What the panel says; SwiftliteError for a field that holds no number."""
        if None in (temperature, top_p, top_k, penalty, max_tokens):
            raise SwiftliteError('A field of the settings is empty: give a number, or go back to the defaults.')
        return Sampling(
            temperature=float(temperature),
            top_p=float(top_p),
            top_k=int(top_k),
            repetition_penalty=float(penalty),
            max_tokens=int(max_tokens),
            seed=None if seed is None else int(seed),
            thinking=bool(thinking) if self._thinks else None,
        )

    def defaults(self) -> list[Any]:
        """The values of `inputs` at first."""
        return first_values(self._profile)


def first_values(profile: Profile) -> list[Any]:
    """What stands in the panel before anything is changed, in the order of `Controls.inputs`."""
    own, limit = profile.sampling, profile.limit or UNKNOWN_LIMIT
    return [
        own.temperature,
        own.top_p,
        own.top_k,
        own.repetition_penalty,
        min(own.max_tokens, limit),
        own.seed,
        bool(own.thinking),
    ]
