"""A server that speaks OpenAI's API as the partner: `swiftlite app-ui --base_url …`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from swiftlite.errors import SwiftliteError
from swiftlite.template.thinking import CLOSE, OPEN
from swiftlite.ui.partner import Messages, Piece, Profile, Sampling

if TYPE_CHECKING:
    from swiftlite.args.app_ui import AppUiArgs

LOOPBACK = ('127.0.0.1', 'localhost', '::1')  # never through a proxy
SILENCE = 600.0  # seconds without a byte until an answer is given up
THOUGHTS = ('reasoning_content', 'reasoning')  # keys of a delta that hold what is thought


class Remote:
    """The server at `url`, as it is or, where it has no path, with '/v1'. Create with `await Remote.connect(args)`."""

    def __init__(
        self, url: str, api_key: str | None, sampling: Sampling, sent: Collection[str] = (), stops: Sequence[str] = ()
    ) -> None:
        self._url = url.rstrip('/') + ('' if urlsplit(url).path.strip('/') else '/v1')
        self._client = httpx.AsyncClient(
            headers={'Authorization': f'Bearer {api_key}'} if api_key else {},
            timeout=httpx.Timeout(SILENCE, connect=10),
            trust_env=urlsplit(url).hostname not in LOOPBACK,
        )
        self._sent = sent  # fields that go with every request
        self._stops = {'stop': list(stops)} if stops else {}
        self.profile = Profile(models=(), sampling=sampling)

    @classmethod
    async def connect(cls, args: AppUiArgs) -> Remote:
        """Ask the server for its models; SwiftliteError where none answers."""
        typed: dict[str, Any] = {
            'temperature': 0.0 if args.do_sample is False else args.temperature,
            'top_p': args.top_p,
            'top_k': None if args.top_k is None else max(args.top_k, 0),
            'repetition_penalty': args.repetition_penalty,
        }
        typed = {name: value for name, value in typed.items() if value is not None}
        sampling = Sampling(**typed, max_tokens=args.max_new_tokens)
        self = cls(str(args.base_url), args.api_key, sampling, typed, args.stop_words)
        try:
            models = await self._models()
        except BaseException:
            await self.close()
            raise
        limits = [model['max_model_len'] for model in models if isinstance(model.get('max_model_len'), int)]
        names = tuple(str(model['id']) for model in models)
        self.profile = Profile(models=names, limit=max(limits, default=None), sampling=sampling)
        return self

    async def chat(self, messages: Messages, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        thinking = False
        body = {'model': model, 'messages': messages, **self._wishes(sampling)}
        async for choice, tokens in self._stream('/chat/completions', body):
            delta = choice.get('delta') or {}
            text = delta.get('content') or ''
            thought = next((delta[key] for key in THOUGHTS if delta.get(key)), '')
            if thought and not thinking:
                thinking, thought = True, f'{OPEN}\n{thought}'
            if text and thinking:
                thinking, text = False, f'\n{CLOSE}\n\n{text}'
            yield Piece(thought + text, tokens, choice.get('finish_reason'))

    async def complete(self, text: str, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        body = {'model': model, 'prompt': text, **self._wishes(sampling)}
        async for choice, tokens in self._stream('/completions', body):
            yield Piece(choice.get('text') or '', tokens, choice.get('finish_reason'))

    async def close(self) -> None:
        await self._client.aclose()

    def _wishes(self, sampling: Sampling) -> dict[str, Any]:
        """What differs from the panel's first values or was typed; the rest is left to the server's own defaults."""
        first = asdict(self.profile.sampling)
        wanted = asdict(sampling)
        wanted.pop('thinking')
        length = {'max_tokens': wanted.pop('max_tokens')}
        changed = {name: value for name, value in wanted.items() if value != first[name] or name in self._sent}
        return length | changed | self._stops

    async def _models(self) -> list[dict[str, Any]]:
        try:
            response = await self._client.get(f'{self._url}/models')
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from None
        data = _object(response.text).get('data')
        if response.is_error:
            raise SwiftliteError(self._sentence(response.status_code, response.text))
        if not isinstance(data, list) or not data or not all(isinstance(m, dict) and 'id' in m for m in data):
            raise SwiftliteError(f"{self._url}/models lists no models: --base_url must be an OpenAI server's, with /v1")
        return data

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[tuple[dict[str, Any], int]]:
        """(choice, new tokens) of each event. The server's usage corrects the count, where it sends one."""
        body = body | {'stream': True, 'stream_options': {'include_usage': True}}
        counted = 0
        finish: dict[str, Any] | None = None
        try:
            async with self._client.stream('POST', self._url + path, json=body) as response:
                if response.is_error:
                    await response.aread()
                    raise SwiftliteError(self._sentence(response.status_code, response.text))
                async for line in response.aiter_lines():
                    if not line.startswith('data:') or line.endswith('[DONE]'):
                        continue
                    event = _object(line[5:])
                    if 'error' in event:
                        raise SwiftliteError(self._sentence(500, line[5:]))
                    for choice in event.get('choices') or ():
                        finish = choice if choice.get('finish_reason') else finish
                        tokens = int(bool(choice.get('text') or any((choice.get('delta') or {}).values())))
                        counted += tokens
                        yield choice, tokens
                    if usage := event.get('usage'):
                        yield {}, int(usage.get('completion_tokens') or counted) - counted
                        counted = int(usage.get('completion_tokens') or counted)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from None
        if finish is None:
            raise SwiftliteError(f'The stream from {self._url} ended before the answer did.')

    def _failed(self, error: Exception) -> SwiftliteError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return SwiftliteError(f"No server answers at {self._url}: start one with 'swiftlite deploy'.")
        if isinstance(error, httpx.TimeoutException):
            return SwiftliteError(f'The server at {self._url} was silent for {SILENCE:.0f} s.')
        return SwiftliteError(f'The connection to {self._url} broke off: {error or type(error).__name__}.')

    def _sentence(self, status: int, text: str) -> str:
        """The message in an OpenAI error body."""
        body = _object(text)
        error = body.get('error', body)
        message = error.get('message') if isinstance(error, dict) else error
        if status == 401 and not message:
            message = 'it asks for a key: give --api_key'
        return str(message) if message else f'{self._url} answered with status {status}.'


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
