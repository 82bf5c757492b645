"""The page over a real engine in a thread, and a headless Chromium to look at it."""

import asyncio
import queue
import shutil
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

pytest.importorskip('gradio', reason="the chat page needs gradio: pip install 'swiftlite[ui]'")

from swiftlite.args.app_ui import AppUiArgs
from swiftlite.infer.setup import prepare
from swiftlite.serve.app import create_app as create_api
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.service import Service
from swiftlite.template import get_template
from swiftlite.ui.answers import Answers
from swiftlite.ui.app import create_app
from swiftlite.ui.local import Local
from tests.tiny import EXACT, tiny_adapter

TINY_CHAT = Path(__file__).parents[2] / 'swiftlite' / 'assets' / 'tiny-chat'
FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'),
    *('--disable-background-networking', '--disable-component-update'),
)


class PageThread:
    """The page of `args`, served on a free port by a thread of the test process.

    The same engine answers over OpenAI's API at `api`, as `swiftlite deploy` would.
    """

    def __init__(self, args: AppUiArgs) -> None:
        self.url = ''
        self.api = ''
        self.partner: Any = None
        self.answers = Answers()
        self._args = args
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready: queue.Queue[BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> 'PageThread':
        self._thread.start()
        if error := self._ready.get(timeout=120):
            raise error
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def running(self) -> int:
        """Requests that the engine works on."""
        return self.call(self.partner.engine.stats())['num_running']

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            self.partner = await Local.start(prepare(self._args), self._args)
            app = create_app(self.partner, self.answers, title='swiftlite', language='auto')
        except BaseException as error:
            self._ready.put(error)
            raise
        engine, (base, *_) = self.partner.engine, self.partner.profile.models
        models = ServedModels([base], str(TINY_CHAT), max_model_len=engine.model_config.max_model_len)
        template = get_template('tiny-chat', engine.tokenizer)
        api = create_api(Service(engine, models, template, {'temperature': 0.0}))
        page, self.url = await self._listen(app)
        server, url = await self._listen(api)
        self.api = f'{url}v1'
        self._ready.put(None)
        await self._stop.wait()
        for uvicorn_server, _ in (page, server):
            uvicorn_server.should_exit = True
        await asyncio.gather(page[1], server[1])
        await self.partner.close()

    async def _listen(self, app: Any) -> tuple[tuple[uvicorn.Server, asyncio.Task[None]], str]:
        listener = socket.create_server(('127.0.0.1', 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level='error', timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        return (server, serving), f'http://127.0.0.1:{listener.getsockname()[1]}/'


@pytest.fixture(scope='session')
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter for tiny-chat: what it says makes no sense and takes long to end."""
    return tiny_adapter(tmp_path_factory.mktemp('noise'), TINY_CHAT)


@pytest.fixture(scope='session')
def served(noise: Path) -> Iterator[PageThread]:
    args = AppUiArgs(model_type='tiny-chat', lora_modules=[f'noise={noise}'], max_model_len=1024, **EXACT)
    with PageThread(args) as page:
        yield page


@pytest.fixture(scope='module')
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip('playwright.sync_api', reason='the page is looked at with playwright')
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('the page is looked at in Chromium, which is not installed: apt-get install chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()
