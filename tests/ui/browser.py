"""A user in front of the page."""

import re
import time
from collections.abc import Callable
from typing import Any

BOX = '#box textarea'
ANSWERS = '#chat .bot.message'
QUESTIONS = '#chat .user.message'
GROWTH = """
window.seen = new Set();
new MutationObserver(() => {
  const answers = document.querySelectorAll('#chat .bot.message');
  if (answers.length) window.seen.add(answers[answers.length - 1].innerText);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


class User:
    """A browser of its own, with its own storage, on `url`. `requests`: every address that it asked for."""

    def __init__(self, chromium: Any, url: str, width: int = 1280, height: int = 800, locale: str = 'en-US') -> None:
        self.context = chromium.new_context(viewport={'width': width, 'height': height}, locale=locale)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.page.on('requestfailed', self._refused)
        self.page.on('pageerror', lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.ready()

    def __enter__(self) -> 'User':
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.close()

    @property
    def answers(self) -> list[str]:
        return [text.strip() for text in self.page.locator(ANSWERS).all_inner_texts()]

    @property
    def questions(self) -> list[str]:
        return [text.strip() for text in self.page.locator(QUESTIONS).all_inner_texts()]

    @property
    def chats(self) -> list[str]:
        """Titles of the conversations, the newest first."""
        return self.page.locator('#chats .open').all_inner_texts()

    @property
    def typed(self) -> str:
        return self.page.input_value(BOX)

    @property
    def status(self) -> str:
        return self.page.inner_text('#status .line')

    def ready(self) -> None:
        self.page.wait_for_selector(BOX)
        self.page.wait_for_selector('#chats *', state='attached')  # the script has put things back

    def send(self, text: str) -> None:
        """Type a message and press Enter; returns when it is answered or being answered."""
        self.page.fill(BOX, text)
        self.page.press(BOX, 'Enter')
        self.page.wait_for_function("document.querySelector('#box textarea').value === ''")

    def ask(self, text: str) -> str:
        """Send a message and wait for the whole answer."""
        self.send(text)
        self.ended()
        return self.answers[-1]

    def ended(self) -> None:
        self.page.wait_for_selector('#status [data-state=done]')
        self.page.wait_for_selector('#send')
        self.page.wait_for_timeout(100)  # the chat draws a little later than the line under it

    def choose(self, model: str) -> None:
        self.page.click('#model input')
        self.page.click(f'[role=option]:has-text("{model}")')

    def _refused(self, request: Any) -> None:
        if request.failure == 'csp':  # the browser never sent it
            self.requests.remove(request.url)

    def outside(self) -> list[str]:
        """Requests that went elsewhere."""
        return [url for url in self.requests if not re.match(r'(http://127\.0\.0\.1:\d+/|data:|blob:)', url)]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'not within {seconds} s: {what}'
        time.sleep(0.05)
