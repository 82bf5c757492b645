"""What is trained on and what is held out: one rule for phrasings, one for values."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar('T')


def held_out(kind: str, value: object, percent: int = 20) -> bool:
    """True for a fixed, seed-independent `percent` % of the values of a kind."""
    digest = hashlib.sha256(f'{kind}:{value}'.encode()).digest()
    return int.from_bytes(digest[:4], 'big') % 100 < percent


@dataclass(frozen=True)
class Phrases:
    """Ways to say one thing: `seen` ones are trained on, `held` ones are kept for evaluation."""

    seen: tuple[str, ...]
    held: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One conversation. `check` says how evaluate.py scores the last assistant message."""

    task: str
    language: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    check: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draw:
    """A seeded source of choices. `held` names what comes from the held-out side: 'phrases', 'values' or nothing."""

    rng: random.Random
    held: str = ''

    def one(self, options: Sequence[T]) -> T:
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def phrase(self, phrases: Phrases) -> str:
        return self.rng.choice(phrases.held if self.held == 'phrases' else phrases.seen)

    def value(self, kind: str, make: Callable[[random.Random], T]) -> T:
        """A value from `make` on this draw's side of the split of its kind."""
        while True:
            value = make(self.rng)
            if held_out(kind, value) == (self.held == 'values'):
                return value


def chat(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    """Messages from alternating user and assistant turns."""
    head = [] if system is None else [{'role': 'system', 'content': system}]
    roles = ('user', 'assistant')
    return head + [{'role': roles[i % 2], 'content': text} for i, text in enumerate(turns)]


def sentence(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
