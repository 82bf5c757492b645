"""ms-swift's request shape (query, history, system) → messages."""

from collections.abc import Sequence
from typing import Any

from swiftlite.errors import SwiftliteError


def conversation(
    query: str, history: Sequence[Sequence[str]] | None = None, system: str | None = None
) -> list[dict[str, Any]]:
    """Messages that end with `query`. `history`: [query, response] pairs; no or an empty `system`: the template's own.

    Raises SwiftliteError, one sentence, for what is not text or no pair.
    """
    messages: list[dict[str, Any]] = []
    if system is not None and not isinstance(system, str):
        raise SwiftliteError(f"'system' must be text, got {type(system).__name__}")
    if system:
        messages.append({'role': 'system', 'content': system})
    if isinstance(history, str) or not isinstance(history or [], Sequence):
        raise SwiftliteError(f"'history' must be a list of [query, response] pairs, got {type(history).__name__}")
    for number, pair in enumerate(history or [], 1):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise SwiftliteError(f"entry {number} of 'history' is no [query, response] pair: {pair!r}")
        if not all(isinstance(text, str) for text in pair):
            raise SwiftliteError(f"entry {number} of 'history' must be two texts, got {pair!r}")
        messages.append({'role': 'user', 'content': pair[0]})
        messages.append({'role': 'assistant', 'content': pair[1]})
    if not isinstance(query, str):
        raise SwiftliteError(f"'query' must be text, got {type(query).__name__}")
    return [*messages, {'role': 'user', 'content': query}]
