"""The page to chat on, in one language. The conversations are kept by page.js in the browser, never here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from swiftlite.errors import SwiftliteError
from swiftlite.ui import frame
from swiftlite.ui.answers import Answer, Answers
from swiftlite.ui.messages import Shown, answer_messages, conversation, last_question, shown, text_of
from swiftlite.ui.partner import Partner
from swiftlite.ui.texts import Texts

LATEX = [
    {'left': '$$', 'right': '$$', 'display': True},
    {'left': '\\[', 'right': '\\]', 'display': True},
    {'left': '\\(', 'right': '\\)', 'display': False},
]
UNCHANGED = gr.skip()


class ChatPage:
    """The Blocks and what its events do. What they return goes to message box, chatbot, status, send, stop."""

    def __init__(self, partner: Partner, answers: Answers, texts: Texts, title: str) -> None:
        self._partner = partner
        self._answers = answers
        self._texts = texts
        self._title = title

    def blocks(self) -> gr.Blocks:
        texts, profile = self._texts, self._partner.profile
        with gr.Blocks(title=self._title, analytics_enabled=False, fill_width=True) as page:
            with gr.Row(elem_id='app'):
                gr.HTML(frame.side(self._title, texts, chats=True), elem_id='side')
                with gr.Column(elem_id='main'):
                    model = frame.top_row(profile, texts)
                    chatbot = gr.Chatbot(
                        elem_id='chat',
                        show_label=False,
                        height='100%',
                        editable='all',
                        buttons=['copy'],
                        latex_delimiters=LATEX,
                        allow_tags=True,
                        placeholder=f'## {texts.hello}\n\n{texts.hint}',
                        layout='bubble',
                        feedback_options=None,
                    )
                    status = gr.HTML(frame.status(''), elem_id='status')
                    with gr.Row(elem_id='ask'):
                        box = gr.Textbox(
                            placeholder=texts.message,
                            label=texts.message,
                            show_label=False,
                            container=False,
                            lines=1,
                            max_lines=10,
                            autofocus=True,
                            elem_id='box',
                        )
                        send = gr.Button(texts.send, elem_id='send', variant='primary', min_width=0)
                        stop = gr.Button(texts.stop, elem_id='stop', min_width=0, visible=False)
                self._controls, reset = frame.panel(profile, texts)
            self._wire(page, chatbot, status, box, send, stop, model, reset)
        return page

    def _wire(
        self, page: Any, chatbot: Any, status: Any, box: Any, send: Any, stop: Any, model: Any, reset: Any
    ) -> None:
        controls = self._controls
        wishes = [model, controls.system, *controls.inputs]
        outputs = [box, chatbot, status, send, stop]
        quiet: dict[str, Any] = {'show_progress': 'hidden', 'concurrency_limit': None, 'api_visibility': 'private'}
        gr.on([send.click, box.submit], self.send, [box, chatbot, *wishes], outputs, **quiet)
        chatbot.retry(self.retry, [box, chatbot, *wishes], outputs, **quiet)
        chatbot.edit(self.edit, [box, chatbot, *wishes], outputs, **quiet)
        chatbot.undo(self.undo, [box, chatbot], outputs, **quiet)
        chatbot.clear(self.stop, None, None, **quiet)
        stop.click(self.stop, None, None, **quiet)
        reset.click(controls.defaults, None, controls.inputs, **quiet)
        # the script keeps conversations: it saves what changes, and puts back what is opened
        kept = [chatbot, model, controls.system]
        gr.on([chatbot.change, controls.system.input, model.input], None, kept, None, js='swiftlite.save')
        box.change(None, [box], None, js='swiftlite.draft')
        opened = gr.Button(visible='hidden', elem_id='opened')
        opened.click(None, None, [*kept, box, status], js='swiftlite.opened')
        gr.on([control.change for control in controls.inputs], None, controls.inputs, None, js='swiftlite.adjusted')
        page.load(None, None, [*kept, box, status, *controls.inputs], js='swiftlite.start')
        page.unload(self.stop)

    async def send(
        self, request: gr.Request, text: str, messages: Shown, model: str, system: str, *values: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer what is in the box; it comes back there where nothing could be said to it."""
        if not text.strip() or self._answers.running(request.session_hash):
            yield (UNCHANGED,) * 5
            return
        asked = [*messages, shown('user', text)]
        async for update in self._reply(asked, messages, text, model, system, values, request):
            yield update

    async def retry(
        self, request: gr.Request, text: str, messages: Shown, model: str, system: str, *values: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer the last question again; the old answer stays where there is no new one."""
        last = last_question(messages)
        if last is None:
            yield (UNCHANGED,) * 5
            return
        async for update in self._reply(messages[: last + 1], messages, None, model, system, values, request):
            yield update

    async def edit(
        self,
        change: gr.EditData,
        request: gr.Request,
        text: str,
        messages: Shown,
        model: str,
        system: str,
        *values: Any,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """A question that is changed is answered anew, and what followed it goes; a changed answer just stays so."""
        index = change.index if isinstance(change.index, int) else change.index[0]
        if messages[index]['role'] != 'user':
            yield (UNCHANGED,) * 5
            return
        asked = [*messages[:index], shown('user', str(change.value))]
        async for update in self._reply(asked, asked, None, model, system, values, request):
            yield update

    def undo(self, request: gr.Request, text: str, messages: Shown) -> tuple[Any, ...]:
        """Take the last question and its answer back; the question returns to an empty box."""
        self._answers.stop(request.session_hash)
        last = last_question(messages)
        if last is None:
            return (UNCHANGED,) * 5
        question = UNCHANGED if text.strip() else text_of(messages[last])
        return question, messages[:last], frame.status(''), *_buttons(running=False)

    def stop(self, request: gr.Request) -> None:
        """End this page's answer, also when the page is closed."""
        self._answers.stop(request.session_hash)

    async def _reply(
        self,
        asked: Shown,
        before: Shown,
        typed: str | None,
        model: str,
        system: str,
        values: tuple[Any, ...],
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer `asked`; where there is no answer, `before` is shown and `typed` is in the box again."""
        texts = self._texts
        box = UNCHANGED if typed is None else ''
        try:
            sampling = self._controls.sampling(*values)
        except SwiftliteError as error:
            yield UNCHANGED, before, frame.status(str(error), 'error'), *_buttons(running=False)
            return
        pieces = self._partner.chat(conversation(asked, system), model, sampling)
        answer = self._answers.start(request.session_hash, pieces)
        yield box, asked, frame.status(texts.waiting, 'running'), *_buttons(running=True)
        async for _ in answer.changes():
            if not answer.done:
                line = frame.status(texts.status(answer), 'running')
                yield UNCHANGED, self._messages(asked, answer), line, UNCHANGED, UNCHANGED
        end = _buttons(running=False)
        if answer.error is None:
            yield UNCHANGED, self._messages(asked, answer), frame.status(texts.status(answer), 'done'), *end
            return
        line = frame.status(texts.error(answer.error), 'error')
        if answer.text:
            yield UNCHANGED, self._messages(asked, answer), line, *end
        else:
            yield UNCHANGED if typed is None else typed, before, line, *end

    def _messages(self, asked: Shown, answer: Answer) -> Shown:
        texts = self._texts
        return [*asked, *answer_messages(answer.text, answer.done, texts.thinking_now, texts.thought)]


def _buttons(running: bool) -> tuple[Any, Any]:
    """Send and stop: one of them is there."""
    return gr.update(visible=not running), gr.update(visible=running)
