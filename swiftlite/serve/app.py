"""The FastAPI application over one `Service`. It holds no globals: several can live in one process."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import swiftlite
from swiftlite.errors import SwiftliteError
from swiftlite.serve.adapters import load_adapter, unload_adapter
from swiftlite.serve.auth import ApiKeyGuard
from swiftlite.serve.chat import create_chat_completion
from swiftlite.serve.completions import create_completion
from swiftlite.serve.errors import ApiError, as_api_error, validation_error
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


def create_app(service: Service) -> FastAPI:
    """All endpoints for `service`; every error leaves as an OpenAI body."""
    # the interactive pages would load scripts from elsewhere
    app = FastAPI(title='swiftlite', version=swiftlite.__version__, docs_url=None, redoc_url=None)
    _add_openai_routes(app, service)
    _add_token_routes(app, service)
    _add_status_routes(app, service)
    _add_error_handlers(app)
    if service.api_key:
        app.add_middleware(ApiKeyGuard, key=service.api_key)
    return app


def _add_openai_routes(app: FastAPI, service: Service) -> None:
    @app.post('/v1/chat/completions', response_model=None)
    async def chat_completions(body: ChatBody) -> Response:
        return await create_chat_completion(service, body)

    @app.post('/v1/completions', response_model=None)
    async def completions(body: CompletionBody) -> Response:
        return await create_completion(service, body)

    @app.get('/v1/models', response_model=None)
    async def list_models() -> Response:
        cards = [service.models.card(model) for model in service.models]
        return JsonReply({'object': 'list', 'data': cards})

    @app.get('/v1/models/{name:path}', response_model=None)
    async def retrieve_model(name: str) -> Response:
        return JsonReply(service.models.card(service.models.get(name)))

    @app.post('/v1/load_lora_adapter', response_model=None)
    async def load_lora_adapter(body: LoadAdapterBody) -> Response:
        return await load_adapter(service, body)

    @app.post('/v1/unload_lora_adapter', response_model=None)
    async def unload_lora_adapter(body: UnloadAdapterBody) -> Response:
        return await unload_adapter(service, body)


def _add_token_routes(app: FastAPI, service: Service) -> None:
    @app.post('/tokenize', response_model=None)
    async def tokenize_text(body: TokenizeBody) -> Response:
        return JsonReply(await tokenize(service, body))

    @app.post('/detokenize', response_model=None)
    async def detokenize_ids(body: DetokenizeBody) -> Response:
        return JsonReply(await detokenize(service, body))


def _add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get('/health', response_model=None)
    async def health() -> Response:
        service.check_engine()
        return Response()

    @app.get('/version', response_model=None)
    async def version() -> Response:
        return JsonReply({'version': swiftlite.__version__})

    @app.get('/metrics', response_model=None)
    async def metrics() -> Response:
        text = service.metrics.render(await service.engine.stats())
        return Response(text, media_type='text/plain; version=0.0.4')


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
        reply = error_reply(ApiError(messages.get(error.status_code, f'{error.detail}.'), status=error.status_code))
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(ApiError)
    @app.exception_handler(SwiftliteError)
    async def refused(request: Request, error: Exception) -> Response:
        known: Any = as_api_error(error)
        return error_reply(known)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return error_reply(ApiError('The server failed on this request; its log says why.', status=500))
