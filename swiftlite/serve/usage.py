"""Token counts of a response, and when a stream carries them."""

from __future__ import annotations

from typing import Any

from swiftlite.engine.outputs import RequestOutput
from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import GenerationBody, StreamOptions
from swiftlite.serve.service import Job


class Usage:
    """Counts of one job. A prompt counts once however many samples it has; so do its tokens found in the cache."""

    def __init__(self, job: Job) -> None:
        self._n = job.n
        self._silent = job.prompt_only
        self._prompt_tokens = sum(map(len, job.prompts))
        self._cached = [0] * len(job.prompts)
        self._completion_tokens = 0

    def add(self, index: int, output: RequestOutput) -> None:
        self._completion_tokens += 0 if self._silent else len(output.outputs[0].token_ids)
        if index % self._n == 0:
            self._cached[index // self._n] = output.num_cached_tokens

    def counts(self) -> dict[str, Any]:
        return {
            'prompt_tokens': self._prompt_tokens,
            'completion_tokens': self._completion_tokens,
            'total_tokens': self._prompt_tokens + self._completion_tokens,
            'prompt_tokens_details': {'cached_tokens': sum(self._cached)},
        }

    def in_chunk(self, options: StreamOptions | None) -> dict[str, Any]:
        """The `usage` entry of an ordinary chunk: absent, null (it comes at the end), or the counts so far."""
        if options is None or not (options.include_usage or options.continuous_usage_stats):
            return {}
        return {'usage': self.counts() if options.continuous_usage_stats else None}


def check_stream(body: GenerationBody) -> None:
    """Refuse what needs a stream, and what cannot be streamed."""
    if body.stream_options is not None and not body.stream:
        raise ApiError('stream_options needs stream true.', param='stream_options')
    if body.stream and body.prompt_logprobs is not None:
        raise ApiError('prompt_logprobs are not streamed; ask with stream false.', param='prompt_logprobs')
