"""Token ids → text as they come, in whole characters only."""

from __future__ import annotations

import itertools
from typing import Any

HELD = 8  # undecodable tokens to wait for before giving up on them; a UTF-8 character has at most 4 bytes


class Detokenizer:
    """Incremental decoding of one sequence.

    A byte-level token may end inside a character, and decoders add or strip spaces depending on what stands before: so
    text is the difference between decoding a short window with and without its newest tokens, held back while the
    difference ends in an incomplete character.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True):
        self._tokenizer = tokenizer
        self._plain = tokenizer.backend_tokenizer.decode if _is_plain(tokenizer) else None
        self._skip = skip_special_tokens
        # some decoders put spaces between tokens: special tokens may be wanted without
        close = not (skip_special_tokens or spaces_between_special_tokens)
        self._close = dict(tokenizer.added_tokens_decoder) if close else {}
        self._window: list[int] = []
        self._read = 0  # tokens of the window whose text is out
        self._prefix = ''  # their text

    def add(self, token: int) -> str:
        """The text that `token` completes ('' while a character is incomplete)."""
        self._window.append(token)
        text = self.decode(self._window)
        new = text[len(self._prefix) :]
        if (not new or new.endswith('\ufffd')) and len(self._window) - self._read <= HELD:
            return ''
        # keep the tokens just written as context for the next ones
        self._window = self._window[self._read :]
        self._read = len(self._window)
        self._prefix = self.decode(self._window)
        return new

    def flush(self) -> str:
        """What was held back, at the end: whole characters that came with the beginning of one."""
        return self.decode(self._window)[len(self._prefix) :].rstrip('\ufffd')

    def decode(self, ids: list[int]) -> str:
        """The text of tokens that are all there."""
        if self._plain is not None:
            text = self._plain(ids, self._skip)
        else:
            text = self._tokenizer.decode(ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)
        for pair in itertools.pairwise(ids) if self._close else ():
            if all(token in self._close for token in pair):
                first, second = (str(self._close[token]) for token in pair)
                text = text.replace(f'{first} {second}', first + second)
        return text


def _is_plain(tokenizer: Any) -> bool:
    """Whether decoding is that of the backend and nothing around it, which costs several times as much."""
    from transformers import PreTrainedTokenizerBase, TokenizersBackend  # slow to import, and here by now

    kind = type(tokenizer)
    return (
        getattr(kind, '_decode', None) is TokenizersBackend._decode
        and getattr(kind, 'decode', None) is PreTrainedTokenizerBase.decode
    )


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that may be the beginning of `marker`."""
    return next((n for n in range(min(len(marker) - 1, len(text)), 0, -1) if text.endswith(marker[:n])), 0)


class StopChecker:
    """Looks for stop strings in growing text and holds back what may become one."""

    def __init__(self, stops: list[str], include: bool):
        self._stops, self._include = stops, include
        self._held = ''

    def add(self, text: str) -> tuple[str, str | None]:
        """(text that is safe to show, the stop string that ended it or None)."""
        if not self._stops:
            return text, None
        held = self._held + text
        hits = [(at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if hits:
            at, stop = min(hits)
            self._held = ''
            return held[: at + len(stop) if self._include else at], stop
        keep = max(overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None

    def flush(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ''
        return held
