"""Answers on their way. Each is read in a task of its own, so that a page that goes away cannot hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator

from swiftlite.errors import SwiftliteError
from swiftlite.ui.partner import Piece

logger = logging.getLogger('swiftlite.ui')
MEASURABLE = 0.1  # seconds; answers that come in one go tell no rate
PAUSE = 0.06  # seconds between two looks of the page, so that many tokens a second stay cheap


class Answer:
    """One answer. text: so far; tokens: their number; error: why it broke off; seconds to first and last token."""

    def __init__(self, pieces: AsyncGenerator[Piece, None]) -> None:
        self.text = ''
        self.tokens = 0
        self.finish: str | None = None
        self.error: SwiftliteError | None = None
        self.first: float | None = None
        self.last: float | None = None
        self._first_tokens = 0
        self._begun = time.perf_counter()
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read(pieces))
        self._task.add_done_callback(lambda task: self._news.set())

    @property
    def done(self) -> bool:
        return self._task.done()

    @property
    def stopped(self) -> bool:
        """Whether it was ended by `stop`."""
        return self._task.cancelled()

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first; None where too little time passed to tell."""
        if self.first is None or self.last is None or self.last - self.first < MEASURABLE:
            return None
        return (self.tokens - self._first_tokens) / (self.last - self.first)

    def stop(self) -> None:
        """End it now, and with it the request behind it; nothing happens to one that is done."""
        self._task.cancel()

    async def changes(self) -> AsyncIterator[None]:
        """Yield whenever there is more, a last time when it is done."""
        while not self.done:
            await self._news.wait()
            self._news.clear()
            yield
            if not self.done:
                await asyncio.wait({self._task}, timeout=PAUSE)
        yield

    async def _read(self, pieces: AsyncGenerator[Piece, None]) -> None:
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    self._add(piece)
        except SwiftliteError as error:
            self.error = error
        except Exception:  # nobody awaits this task: whatever broke, the page says so and the log says what
            logger.exception('an answer failed')
            self.error = SwiftliteError('The answer failed; the log of swiftlite app-ui says why.')

    def _add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish or self.finish
        if piece.tokens:
            self.tokens += piece.tokens
            self.last = time.perf_counter() - self._begun
            if self.first is None:
                self.first, self._first_tokens = self.last, piece.tokens
        self._news.set()


class Answers:
    """The answer of each open page, at most one; a page is known by the hash that Gradio gives it."""

    def __init__(self) -> None:
        self._running: dict[str, Answer] = {}

    def __len__(self) -> int:
        return sum(not answer.done for answer in self._running.values())

    def running(self, page: str) -> bool:
        return page in self._running and not self._running[page].done

    def start(self, page: str, pieces: AsyncGenerator[Piece, None]) -> Answer:
        """Begin to answer; an earlier answer of this page ends."""
        self.stop(page)
        self._running[page] = Answer(pieces)
        return self._running[page]

    def stop(self, page: str) -> None:
        """End the answer of a page; nothing where none runs."""
        answer = self._running.pop(page, None)
        if answer is not None:
            answer.stop()
