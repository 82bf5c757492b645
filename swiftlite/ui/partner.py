"""Who answers on the page: an engine of this command, or a server elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from swiftlite.errors import SwiftliteError

Messages = list[dict[str, Any]]


class PromptTooLong(SwiftliteError):
    """The conversation leaves no room for an answer."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f'The conversation has {tokens} tokens, but the model takes {limit} in all.')
        self.tokens = tokens
        self.limit = limit


class EngineGone(SwiftliteError):
    """The engine process ended while it was answering, or before; a new one is being started."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. thinking: whether a model that may think first does so; None leaves it to the model."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    repetition_penalty: float = 1.0
    max_tokens: int = 2048
    seed: int | None = None
    thinking: bool | None = None


@dataclass(frozen=True)
class Piece:
    """What is new in an answer. finish: None until it ends, then 'stop', 'length' or another reason of the engine."""

    text: str
    tokens: int
    finish: str | None = None


@dataclass(frozen=True)
class Profile:
    """What the page shows of a partner.

    models: names, the base model first. chats: False for a base model, which continues a text. limit: tokens of prompt
    and answer together, None where unknown. thinking: 'optional', 'always' or None. system: the template's own prompt.
    """

    models: tuple[str, ...]
    chats: bool = True
    limit: int | None = None
    thinking: str | None = None
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


class Partner(Protocol):
    """Answers conversations and continues texts; any number at once. Closing an iterator frees its request."""

    @property
    def profile(self) -> Profile: ...

    def chat(self, messages: Messages, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """The answer to `messages`, as it is written; SwiftliteError, one sentence, where there is none."""
        ...

    def complete(self, text: str, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """What follows `text`, as it is written; errors as for `chat`."""
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...
