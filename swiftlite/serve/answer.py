"""One response under construction, streamed or whole: what chat and text completions share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from swiftlite.engine.outputs import RequestOutput
from swiftlite.serve.protocol import GenerationBody
from swiftlite.serve.service import Job
from swiftlite.serve.usage import Usage


class Choice(Protocol):
    """One sample on its way: turns engine output into entries of `choices` and keeps what they add up to."""

    def opening(self, output: RequestOutput) -> list[dict[str, Any]]:
        """Stream entries that come before the first of `feed`: the role, what is echoed."""

    def feed(self, output: RequestOutput) -> list[dict[str, Any]]:
        """Stream entries for what is new; none where nothing can be shown yet."""

    def whole(self) -> dict[str, Any]:
        """The entry of a response that is not streamed."""


class Answer:
    """Puts entries of `choices` into chunks, or into one body, with ids and token counts.

    `kinds`: what `object` says in a body and in a chunk. `head`: fields of the body and of the first chunk.
    """

    def __init__(
        self,
        job: Job,
        body: GenerationBody,
        choices: Sequence[Choice],
        kinds: tuple[str, str],
        head: dict[str, Any] | None = None,
    ) -> None:
        self.job = job
        self.stream = body.stream
        self._body = body
        self._choices = choices
        self._kinds = kinds
        self._head = head or {}
        self._begun: set[int] = set()
        self._usage = Usage(job)
        self._created = int(time.time())

    def feed(self, index: int, output: RequestOutput) -> list[dict[str, Any]]:
        """Take in what is new in a choice; the chunks to send now."""
        self._usage.add(index, output)
        choice, first = self._choices[index], not self._begun
        opening = [] if index in self._begun else choice.opening(output)
        self._begun.add(index)
        entries = opening + choice.feed(output)
        if not self.stream:
            return []
        chunks = [
            self._envelope(1) | {'choices': [entry]} | self._usage.in_chunk(self._body.stream_options)
            for entry in entries
        ]
        if first and chunks:
            chunks[0] |= self._head
        return chunks

    def closing(self) -> list[dict[str, Any]]:
        """The last chunks: the token counts, where they were asked for."""
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return []
        return [self._envelope(1) | {'choices': [], 'usage': self._usage.counts()}]

    def body(self) -> dict[str, Any]:
        """The whole response."""
        choices = [choice.whole() for choice in self._choices]
        return self._envelope(0) | {'choices': choices, 'usage': self._usage.counts()} | self._head

    def _envelope(self, kind: int) -> dict[str, Any]:
        return {
            'id': self.job.id,
            'object': self._kinds[kind],
            'created': self._created,
            'model': self.job.model.name,
        }
