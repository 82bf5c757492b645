"""The page of a base model, which continues a text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from swiftlite.errors import SwiftliteError
from swiftlite.ui import frame
from swiftlite.ui.answers import Answers
from swiftlite.ui.partner import Partner
from swiftlite.ui.texts import Texts

UNCHANGED = gr.skip()


class CompletionPage:
    """The Blocks and what its events do. What they return goes to text, earlier texts, status, go on, stop."""

    def __init__(self, partner: Partner, answers: Answers, texts: Texts, title: str) -> None:
        self._partner = partner
        self._answers = answers
        self._texts = texts
        self._title = title

    def blocks(self) -> gr.Blocks:
        texts, profile = self._texts, self._partner.profile
        with gr.Blocks(title=self._title, analytics_enabled=False, fill_width=True) as page:
            earlier = gr.State([])
            with gr.Row(elem_id='app'):
                gr.HTML(frame.side(self._title, texts, chats=False), elem_id='side')
                with gr.Column(elem_id='main'):
                    model = frame.top_row(profile, texts)
                    text = gr.Textbox(
                        label=texts.text,
                        show_label=False,
                        placeholder=texts.text_hint,
                        lines=20,
                        max_lines=20,
                        buttons=['copy'],
                        autofocus=True,
                        elem_id='text',
                    )
                    status = gr.HTML(frame.status(''), elem_id='status')
                    with gr.Row(elem_id='deeds'):
                        go = gr.Button(texts.go_on, elem_id='send', variant='primary', min_width=0)
                        stop = gr.Button(texts.stop, elem_id='stop', min_width=0, visible=False)
                        back = gr.Button(texts.take_back, elem_id='back', min_width=0)
                        clear = gr.Button(texts.clear, elem_id='clear', min_width=0)
                self._controls, reset = frame.panel(profile, texts)
            controls = self._controls
            outputs = [text, earlier, status, go, stop]
            quiet: dict[str, Any] = {'show_progress': 'hidden', 'concurrency_limit': None, 'api_visibility': 'private'}
            gr.on([go.click, text.submit], self.go_on, [text, earlier, model, *controls.inputs], outputs, **quiet)
            back.click(self.take_back, [text, earlier], [text, earlier, status], **quiet)
            clear.click(self.clear, [text, earlier], [text, earlier, status], **quiet)
            stop.click(self.stop, None, None, **quiet)
            reset.click(controls.defaults, None, controls.inputs, **quiet)
            text.change(None, [text], None, js='swiftlite.text')
            gr.on([control.change for control in controls.inputs], None, controls.inputs, None, js='swiftlite.adjusted')
            page.load(None, None, [text, *controls.inputs], js='swiftlite.startText')
            page.unload(self.stop)
        return page

    async def go_on(
        self, request: gr.Request, text: str, earlier: list[str], model: str, *values: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Write on from the end of the text."""
        texts = self._texts
        if self._answers.running(request.session_hash):
            yield (UNCHANGED,) * 5
            return
        try:
            sampling = self._controls.sampling(*values)
        except SwiftliteError as error:
            yield UNCHANGED, UNCHANGED, frame.status(str(error), 'error'), UNCHANGED, UNCHANGED
            return
        answer = self._answers.start(request.session_hash, self._partner.complete(text, model, sampling))
        waiting = frame.status(texts.waiting, 'running')
        yield UNCHANGED, [*earlier, text], waiting, gr.update(visible=False), gr.update(visible=True)
        async for _ in answer.changes():
            if not answer.done:
                line = frame.status(texts.status(answer), 'running')
                yield text + answer.text, UNCHANGED, line, UNCHANGED, UNCHANGED
        line = frame.status(texts.status(answer), 'done')
        if answer.error is not None:
            line = frame.status(texts.error(answer.error), 'error')
        yield text + answer.text, UNCHANGED, line, gr.update(visible=True), gr.update(visible=False)

    def take_back(self, request: gr.Request, text: str, earlier: list[str]) -> tuple[Any, ...]:
        """The text as it was before the last continuation, or before it was cleared."""
        self._answers.stop(request.session_hash)
        if not earlier:
            return UNCHANGED, UNCHANGED, UNCHANGED
        return earlier[-1], earlier[:-1], frame.status('')

    def clear(self, request: gr.Request, text: str, earlier: list[str]) -> tuple[Any, ...]:
        """An empty text; the one there was can be taken back."""
        self._answers.stop(request.session_hash)
        return '', [*earlier, text] if text else earlier, frame.status('')

    def stop(self, request: gr.Request) -> None:
        """End this page's answer, also when the page is closed."""
        self._answers.stop(request.session_hash)
