"""The FastAPI application over one `Service`. It holds no globals: several can live in one process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response

import swiftlite
from swiftlite.engine.errors import EngineDeadError
from swiftlite.errors import SwiftliteError
from swiftlite.serve import responses
from swiftlite.serve.adapters import load_adapter, unload_adapter
from swiftlite.serve.auth import ApiKeyGuard
from swiftlite.serve.body import BodyRoute
from swiftlite.serve.chat import create_chat_completion
from swiftlite.serve.completions import create_completion
from swiftlite.serve.errors import FAULT, ApiError, as_api_error, validation_error
from swiftlite.serve.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    LoadAdapterBody,
    TokenizeBody,
    UnloadAdapterBody,
)
from swiftlite.serve.reply import JsonReply, error_reply
from swiftlite.serve.service import Service
from swiftlite.serve.tokenize import detokenize, tokenize

STATS_SECONDS = 5.0  # for the engine to say what it counts: a scrape has about ten
METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'


def create_app(service: Service) -> FastAPI:
    """All endpoints for `service`; every error leaves as an OpenAI body."""
    # the interactive pages would load scripts from elsewhere
    app = FastAPI(title='swiftlite', version=swiftlite.__version__, docs_url=None, redoc_url=None)
    app.router.route_class = BodyRoute
    app.state.max_body_bytes = service.limits.max_body_bytes
    _add_openai_routes(app, service)
    _add_adapter_routes(app, service)
    _add_token_routes(app, service)
    _add_status_routes(app, service)
    _add_error_handlers(app)
    if service.api_keys:
        app.add_middleware(ApiKeyGuard, keys=service.api_keys)
    if service.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=service.allowed_origins, allow_methods=['*'], allow_headers=['*']
        )
    return app


def _documented(model: Any, streamed: bool = False) -> dict[str, Any]:
    """Arguments of a route for the OpenAPI description; the endpoints make their responses themselves."""
    good: dict[str, Any] = {'model': model}
    if streamed:
        good['content'] = {'text/event-stream': {'schema': {'type': 'string'}}}
    error = {'model': responses.ErrorReply}
    return {'response_model': None, 'responses': {200: good, '4XX': error, '5XX': error}}


def _add_openai_routes(app: FastAPI, service: Service) -> None:
    @app.post('/v1/chat/completions', **_documented(responses.ChatCompletion, streamed=True))
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        return await create_chat_completion(service, body, _request_id(request))

    @app.post('/v1/completions', **_documented(responses.Completion, streamed=True))
    async def completions(body: CompletionBody, request: Request) -> Response:
        return await create_completion(service, body, _request_id(request))

    @app.get('/v1/models', **_documented(responses.ModelList))
    async def list_models() -> Response:
        cards = [service.models.card(model) for model in service.models]
        return JsonReply({'object': 'list', 'data': cards})

    @app.get('/v1/models/{name:path}', **_documented(responses.ModelCard))
    async def retrieve_model(name: str) -> Response:
        return JsonReply(service.models.card(service.models.get(name)))


def _add_adapter_routes(app: FastAPI, service: Service) -> None:
    @app.post('/v1/load_lora_adapter', response_class=PlainTextResponse, **_documented(str))
    async def load_lora_adapter(body: LoadAdapterBody) -> Response:
        return await load_adapter(service, body)

    @app.post('/v1/unload_lora_adapter', response_class=PlainTextResponse, **_documented(str))
    async def unload_lora_adapter(body: UnloadAdapterBody) -> Response:
        return await unload_adapter(service, body)


def _add_token_routes(app: FastAPI, service: Service) -> None:
    @app.post('/tokenize', **_documented(responses.Tokens))
    async def tokenize_text(body: TokenizeBody) -> Response:
        return JsonReply(await tokenize(service, body))

    @app.post('/detokenize', **_documented(responses.Text))
    async def detokenize_ids(body: DetokenizeBody) -> Response:
        return JsonReply(await detokenize(service, body))


def _add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get('/health', response_class=Response, **_documented(None))
    @app.get('/ping', response_class=Response, **_documented(None))
    @app.post('/ping', response_class=Response, **_documented(None))
    async def health() -> Response:
        service.check_engine()
        return Response()

    @app.get('/version', **_documented(responses.Version))
    async def version() -> Response:
        return JsonReply({'version': swiftlite.__version__})

    @app.get('/load', **_documented(responses.Load))
    async def load() -> Response:
        return JsonReply({'server_load': len(service.running)})

    @app.get('/metrics', response_class=PlainTextResponse, **_documented(str))
    async def metrics() -> Response:
        stats: dict[str, Any] | None = {}  # what the server itself counts is worth reading without an engine, too
        with contextlib.suppress(EngineDeadError):
            try:
                stats = await asyncio.wait_for(service.engine.stats(), STATS_SECONDS)
            except TimeoutError:
                stats = None
        return Response(service.metrics.render(stats), headers={'content-type': METRICS_TYPE})


def _request_id(request: Request) -> str | None:
    """The X-Request-Id that a client or proxy gave, where it can be part of an id."""
    given = request.headers.get('x-request-id', '')
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else None


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def wrong_fields(request: Request, error: RequestValidationError) -> Response:
        return error_reply(validation_error(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        messages = {
            404: f'There is no endpoint {request.url.path}.',
            405: f'{request.url.path} does not take {request.method}.',
        }
        said = messages.get(error.status_code, f'{error.detail}.')
        reply = error_reply(ApiError(said, status=error.status_code, param=getattr(error, 'param', None)))
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(ApiError)
    @app.exception_handler(SwiftliteError)
    async def refused(request: Request, error: Exception) -> Response:
        known: Any = as_api_error(error)
        return error_reply(known)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return error_reply(ApiError(FAULT, status=500))
