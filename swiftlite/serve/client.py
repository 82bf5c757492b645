"""Clients of a running server (`swiftlite deploy`, or any with OpenAI's API): ms-swift's functions over httpx.

Needs neither torch nor the engine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.registry.resolve import find_model
from swiftlite.serve.client_objects import Reply, ServerError, XRequestConfig
from swiftlite.template.conversation import conversation

LOOPBACK = ('127.0.0.1', 'localhost', '::1')  # never through a proxy


@dataclass(frozen=True)
class _Server:
    """Where the server is, and what its answers mean."""

    host: str
    port: str | int
    api_key: str | None
    timeout: float | None

    @property
    def url(self) -> str:
        return f'http://{f"[{self.host}]" if ":" in self.host else self.host}:{self.port}'

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of httpx's clients."""
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UsageError('api_key holds a character that no HTTP header can carry')
        headers = {} if self.api_key is None else {'Authorization': f'Bearer {self.api_key}'}
        return {
            'base_url': self.url,
            'headers': headers,
            'timeout': httpx.Timeout(self.timeout, connect=10),
            'trust_env': self.host not in LOOPBACK,
        }

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what goes wrong on the way into a SwiftliteError."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from None

    def ended_early(self) -> ServerError:
        return ServerError(f'the stream from {self.url} ended before the answer did')

    def _failed(self, error: httpx.HTTPError | httpx.InvalidURL) -> SwiftliteError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return SwiftliteError(
                f'no server answers at {self.url} ({error}): '
                "start one with 'swiftlite deploy', or give its host and port"
            )
        if isinstance(error, httpx.TimeoutException):
            return SwiftliteError(f'the server at {self.url} was silent for {self.timeout} s: give a longer timeout')
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return SwiftliteError(f"'{self.url}' is no address: give the host's name or number, and a port ({error})")
        return ServerError(f'the connection to {self.url} broke off: {error or type(error).__name__}')

    def read(self, response: httpx.Response) -> dict[str, Any]:
        """The JSON object of a good response; ServerError otherwise."""
        try:
            value = response.json()
        except ValueError:
            value = None
        if response.is_error:
            sentence = _sentence(value) or f'{response.url} answered {response.status_code}'
            raise ServerError(sentence, response.status_code)
        if not isinstance(value, dict):
            raise ServerError(f"{response.url} answered with something else than OpenAI's API", response.status_code)
        return value

    def event(self, line: str) -> Reply | None:
        """The chunk in a line of a stream; None in one that holds none."""
        if not line.startswith('data: '):
            return None
        try:
            value = json.loads(line[6:])
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ServerError(f'the stream from {self.url} holds something else than JSON objects: {line[6:86]!r}')
        if 'error' in value:
            raise ServerError(_sentence(value) or f'{self.url} broke off the stream: {value["error"]}')
        for choice in value.get('choices', ()):
            if 'delta' in choice and choice['delta'].get('content') is None:
                choice['delta']['content'] = ''  # so that printing it shows nothing
        return Reply(value)


@dataclass(frozen=True)
class _Call:
    """One request for an answer. A completion without max_tokens asks the server for the prompt's length first."""

    path: str
    body: dict[str, Any]

    @property
    def length_request(self) -> dict[str, Any] | None:
        if 'prompt' in self.body and 'max_tokens' not in self.body:
            return {'model': self.body['model'], 'prompt': self.body['prompt']}
        return None

    def with_length(self, counted: dict[str, Any]) -> _Call:
        try:
            left = max(counted['max_model_len'] - counted['count'], 1)
        except (KeyError, TypeError):
            raise ServerError("the server does not tell the prompt's length: give max_tokens") from None
        return _Call(self.path, self.body | {'max_tokens': left})


def get_model_list_client(
    host: str = '127.0.0.1', port: str | int = '8000', *, api_key: str | None = None, timeout: float | None = 600
) -> Reply:
    """What the server serves: ``.data[0].id`` is the base model's name, adapters follow."""
    return _drive(_Server(host, port, api_key, timeout), _models())


async def get_model_list_client_async(
    host: str = '127.0.0.1', port: str | int = '8000', *, api_key: str | None = None, timeout: float | None = 600
) -> Reply:
    """As `get_model_list_client`."""
    return await _drive_async(_Server(host, port, api_key, timeout), _models())


def inference_client(
    model_type: str,
    query: str,
    history: Sequence[Sequence[str]] | None = None,
    system: str | None = None,
    images: Sequence[str] | None = None,
    *,
    request_config: XRequestConfig | None = None,
    host: str = '127.0.0.1',
    port: str | int = '8000',
    adapter_name: str | None = None,
    is_chat_request: bool | None = None,
    api_key: str | None = None,
    timeout: float | None = 600,
) -> Any:
    """Ask a server: OpenAI's chat completion object, or an iterator of its chunks where request_config.stream is set.

    model_type: a name in the server's list, or adapter_name instead. Base models get a text completion; is_chat_request
    decides where the model type does not tell. timeout: seconds of silence; None: no limit.

    Raises SwiftliteError where no server answers, and ServerError with the server's own sentence.
    """
    config = request_config or XRequestConfig()
    server = _Server(host, port, api_key, timeout)
    call = _call(model_type, query, history, system, images, config, adapter_name, is_chat_request)
    return _stream(server, call) if config.stream else _drive(server, _answer(call))


async def inference_client_async(
    model_type: str,
    query: str,
    history: Sequence[Sequence[str]] | None = None,
    system: str | None = None,
    images: Sequence[str] | None = None,
    *,
    request_config: XRequestConfig | None = None,
    host: str = '127.0.0.1',
    port: str | int = '8000',
    adapter_name: str | None = None,
    is_chat_request: bool | None = None,
    api_key: str | None = None,
    timeout: float | None = 600,
) -> Any:
    """As `inference_client`; with request_config.stream, what is awaited is an asynchronous iterator."""
    config = request_config or XRequestConfig()
    server = _Server(host, port, api_key, timeout)
    call = _call(model_type, query, history, system, images, config, adapter_name, is_chat_request)
    return _stream_async(server, call) if config.stream else await _drive_async(server, _answer(call))


def _call(
    model_type: str,
    query: str,
    history: Sequence[Sequence[str]] | None,
    system: str | None,
    images: Sequence[str] | None,
    config: XRequestConfig,
    adapter_name: str | None,
    is_chat_request: bool | None,
) -> _Call:
    if images:
        raise UsageError("'images' cannot be answered: no model here sees, they read text only")
    messages = conversation(query, history, system)
    body = {'model': adapter_name or model_type} | config.body()
    if is_chat_request is None:
        info = find_model(model_type)
        is_chat_request = info is None or not info.base
    if is_chat_request:
        return _Call('/v1/chat/completions', body | {'messages': messages})
    if len(messages) > 1:
        raise UsageError(f"'{model_type}' is a base model, which continues a text: it takes no history and no system")
    return _Call('/v1/completions', body | {'prompt': query})


# A talk yields (method, path, JSON body) and is sent the response's JSON; what it returns is the result. It knows
# nothing of how requests are made, so that both kinds of client hold the same one.
_Talk = Generator[tuple[str, str, dict[str, Any] | None], dict[str, Any], Any]


def _models() -> _Talk:
    return Reply((yield 'GET', '/v1/models', None))


def _prepared(call: _Call) -> _Talk:
    """The call, with max_tokens where the server has to be asked for it."""
    if call.length_request is not None:
        return call.with_length((yield 'POST', '/tokenize', call.length_request))
    return call


def _answer(call: _Call) -> _Talk:
    call = yield from _prepared(call)
    return Reply((yield 'POST', call.path, call.body))


def _drive(server: _Server, talk: _Talk) -> Any:
    with server.errors(), httpx.Client(**server.options) as client:
        return _continue(server, client, talk)


async def _drive_async(server: _Server, talk: _Talk) -> Any:
    with server.errors():
        async with httpx.AsyncClient(**server.options) as client:
            return await _continue_async(server, client, talk)


def _continue(server: _Server, client: httpx.Client, talk: _Talk) -> Any:
    value = None
    try:
        while True:
            method, path, body = talk.send(value)  # type: ignore[arg-type]
            value = server.read(client.request(method, path, json=body))
    except StopIteration as end:
        return end.value


async def _continue_async(server: _Server, client: httpx.AsyncClient, talk: _Talk) -> Any:
    value = None
    try:
        while True:
            method, path, body = talk.send(value)  # type: ignore[arg-type]
            value = server.read(await client.request(method, path, json=body))
    except StopIteration as end:
        return end.value


def _stream(server: _Server, call: _Call) -> Iterator[Reply]:
    with server.errors(), httpx.Client(**server.options) as client:
        call = _continue(server, client, _prepared(call))
        with client.stream('POST', call.path, json=call.body) as response:
            if response.is_error:
                response.read()
                server.read(response)
            for line in response.iter_lines():
                if line == 'data: [DONE]':
                    return
                if (chunk := server.event(line)) is not None:
                    yield chunk
    raise server.ended_early()


async def _stream_async(server: _Server, call: _Call) -> AsyncIterator[Reply]:
    with server.errors():
        async with httpx.AsyncClient(**server.options) as client:
            call = await _continue_async(server, client, _prepared(call))
            async with client.stream('POST', call.path, json=call.body) as response:
                if response.is_error:
                    await response.aread()
                    server.read(response)
                async for line in response.aiter_lines():
                    if line == 'data: [DONE]':
                        return
                    if (chunk := server.event(line)) is not None:
                        yield chunk
    raise server.ended_early()


def _sentence(value: Any) -> str | None:
    """The message in an OpenAI error body, with or without the 'error' around it."""
    error = value.get('error', value) if isinstance(value, dict) else None
    message = error.get('message') if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else None
