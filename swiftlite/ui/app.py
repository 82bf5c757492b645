"""The web application: the page in each language, the way to the right one, and nothing from elsewhere."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swiftlite.ui import frame
from swiftlite.ui.answers import Answers
from swiftlite.ui.chat_page import ChatPage
from swiftlite.ui.completion_page import CompletionPage
from swiftlite.ui.controls import first_values
from swiftlite.ui.partner import Partner
from swiftlite.ui.texts import LANGUAGES

COOKIE = 'swiftlite-lang'
# the browser itself refuses whatever is not of this server: also a picture that an answer names
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = [
    (b'content-security-policy', POLICY.encode()),
    (b'referrer-policy', b'no-referrer'),
    (b'x-content-type-options', b'nosniff'),
]


def create_app(partner: Partner, answers: Answers, *, title: str, language: str) -> FastAPI:
    """The application. language: 'zh', 'en', or 'auto' for the browser's; a choice on the page is remembered."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OwnOnly)

    @app.get('/')
    async def root(request: Request) -> Response:
        lang = request.cookies.get(COOKIE) or (browser_language(request) if language == 'auto' else language)
        query = f'?{request.url.query}' if request.url.query else ''
        return RedirectResponse(f'{lang if lang in LANGUAGES else "en"}/{query}', headers={'vary': 'accept-language'})

    @app.get('/favicon.ico')
    async def icon() -> Response:
        return FileResponse(frame.icon_file(), media_type='image/svg+xml')

    profile = partner.profile
    page = ChatPage if profile.chats else CompletionPage
    for lang, texts in LANGUAGES.items():
        blocks = page(partner, answers, texts, title).blocks()
        blocks.queue(default_concurrency_limit=None, api_open=False)
        gr.mount_gradio_app(
            app,
            blocks,
            f'/{lang}',
            footer_links=[],
            run_history=False,
            max_file_size='1kb',  # nothing is ever uploaded
            ssr_mode=False,
            theme=frame.theme(),
            head=frame.head(texts, profile.models, first_values(profile)),
        )
    return app


def browser_language(request: Request) -> str:
    """The first language of the browser's that the page speaks; English otherwise."""
    for wish in request.headers.get('accept-language', '').split(','):
        if (lang := wish.strip()[:2].lower()) in LANGUAGES:
            return lang
    return 'en'


class OwnOnly:
    """ASGI middleware: a content security policy on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message['type'] == 'http.response.start':
                message = {**message, 'headers': [*message.get('headers', []), *HEADERS]}
            await send(message)

        await self._app(scope, receive, with_policy if scope['type'] == 'http' else send)
