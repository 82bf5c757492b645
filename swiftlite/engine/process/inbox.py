"""What the engine has said of one request and nobody has read yet."""

from __future__ import annotations

import asyncio

from ..errors import EngineDeadError
from ..outputs import SequenceOutput


class Inbox:
    """Outputs that wait together are read as one, so a reader who falls behind catches up.

    The first end counts: what an engine says of an answer that was aborted here is dropped, and the reverse.
    """

    def __init__(self, request_id: str):
        self._request_id = request_id
        self._tokens: list[int] = []  # plain ones, after `_out`
        self._out: SequenceOutput | None = None
        self.over = False  # its end was put
        self._error: EngineDeadError | None = None
        self._reader: asyncio.Future[None] | None = None

    def put_token(self, token: int) -> None:
        """A token with nothing else to tell."""
        if not self.over:
            self._tokens.append(token)
            self._wake()

    def put(self, out: SequenceOutput) -> None:
        if not self.over:
            self.over = out.finish_reason is not None
            self._out = self._merged(out) if self._tokens or self._out is not None else out
            self._wake()

    def fail(self, error: EngineDeadError) -> None:
        """What was there before can still be read."""
        self._error = error
        self._wake()

    async def get(self) -> SequenceOutput:
        """All that is new, as soon as there is something. EngineDeadError after the last of a dead engine."""
        if self._out is None and not self._tokens and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._out is not None:
            out = self._out
            if self._tokens:
                out.token_ids += self._tokens
        elif self._tokens:
            out = SequenceOutput(self._request_id, self._tokens)
        else:
            assert self._error is not None
            raise self._error
        self._out, self._tokens = None, []
        return out

    def _merged(self, new: SequenceOutput) -> SequenceOutput:
        """Everything unread and `new`, as one output."""
        before = self._out
        tokens, self._tokens = self._tokens, []
        if before is not None:
            tokens = before.token_ids + tokens
            if before.logprobs is not None:
                new.logprobs = before.logprobs + (new.logprobs or [])
            new.num_cached_tokens = max(new.num_cached_tokens, before.num_cached_tokens)
            new.prompt_logprobs = new.prompt_logprobs or before.prompt_logprobs
        new.token_ids = tokens + new.token_ids
        return new

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
