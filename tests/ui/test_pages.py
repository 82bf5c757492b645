"""What the pages' events do, without a browser: a partner that says what it is told to."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from swiftlite.engine.errors import EngineDeadError
from swiftlite.ui.answers import Answers
from swiftlite.ui.chat_page import ChatPage
from swiftlite.ui.completion_page import CompletionPage
from swiftlite.ui.messages import shown, text_of
from swiftlite.ui.partner import EngineGone, Piece, Profile, PromptTooLong, Sampling
from swiftlite.ui.texts import CHINESE, ENGLISH

VALUES = (0.5, 0.9, 20, 1.1, 64, None, False)
REQUEST: Any = SimpleNamespace(session_hash='a page')


class Script:
    """A partner that gives `pieces` and raises `error` at the end; None among the pieces waits for ever."""

    def __init__(self, *pieces: str | None, error: Exception | None = None, **profile: Any) -> None:
        self.profile = Profile(('base', 'tuner'), **profile)
        self.pieces = pieces
        self.error = error
        self.asked: list[Any] = []
        self.freed = 0

    async def chat(self, messages: Any, model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        self.asked.append((messages, model, sampling))
        try:
            for piece in self.pieces:
                if piece is None:
                    await asyncio.Event().wait()
                yield Piece(str(piece), 1)
                await asyncio.sleep(0.07)
            if self.error is not None:
                raise self.error
            yield Piece('', 0, 'stop')
        finally:
            self.freed += 1

    complete = chat

    async def close(self) -> None: ...


def page(partner: Script, texts: Any = ENGLISH, kind: Any = ChatPage) -> Any:
    made = kind(partner, Answers(), texts, 'swiftlite')
    made.blocks()
    return made


async def updates(events: Any) -> list[tuple[Any, ...]]:
    return [update async for update in events]


def texts_of(messages: Any) -> list[str]:
    return [text_of(message) for message in messages]


async def test_an_answer_grows():
    partner = Script('Hel', 'lo')
    seen = await updates(page(partner).send(REQUEST, 'Hi', [], 'tuner', 'Be brief.', *VALUES))
    assert [texts_of(chat) for _, chat, *_ in seen] == [['Hi'], ['Hi', 'Hel'], ['Hi', 'Hello'], ['Hi', 'Hello']]
    assert seen[0][0] == '' and 'data-state="running"' in seen[1][2] and 'data-state="done"' in seen[-1][2]
    assert (seen[0][3]['visible'], seen[0][4]['visible']) == (False, True)
    assert (seen[-1][3]['visible'], seen[-1][4]['visible']) == (True, False)
    ((messages, model, sampling),) = partner.asked
    assert messages == [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    assert (model, sampling) == ('tuner', Sampling(0.5, 0.9, 20, 1.1, 64))


async def test_a_thought_comes_first():
    partner = Script('<think>\nHm', '.\n</think>\n\n', 'Yes.', thinking='optional')
    seen = await updates(page(partner, CHINESE).send(REQUEST, '?', [], 'base', '', *VALUES))
    assert seen[1][1][1]['metadata'] == {'title': '思考中…', 'status': 'pending'}
    assert seen[-1][1][1]['metadata'] == {'title': '思考过程', 'status': 'done'}
    assert texts_of(seen[-1][1]) == ['?', 'Hm.', 'Yes.']
    assert partner.asked[0][2].thinking is False, 'the switch of the page'


@pytest.mark.parametrize('texts', [ENGLISH, CHINESE])
async def test_what_cannot_be_sent_comes_back(texts: Any):
    before = [shown('user', 'a'), shown('assistant', 'b')]
    partner = Script(error=PromptTooLong(5000, 1024))
    box, chat, line, send, _ = (await updates(page(partner, texts).send(REQUEST, 'long', before, 'base', '', *VALUES)))[
        -1
    ]
    assert (box, chat, send['visible']) == ('long', before, True)
    assert texts.too_long.format(5000, 1024) in line and 'data-state="error"' in line and 'role="alert"' in line


async def test_an_engine_that_dies_leaves_what_was_said():
    partner = Script('Hel', error=EngineDeadError('The engine process died.'))
    *_, (_, chat, line, *_) = await updates(page(partner).send(REQUEST, 'Hi', [], 'base', '', *VALUES))
    assert texts_of(chat) == ['Hi', 'Hel'] and 'The engine process died.' in line


@pytest.mark.parametrize('texts', [ENGLISH, CHINESE])
async def test_a_dead_engine_is_back_soon(texts: Any):
    partner = Script(error=EngineGone('exit status -9'))
    *_, (box, _, line, *_) = await updates(page(partner, texts).send(REQUEST, 'Hi', [], 'base', '', *VALUES))
    assert box == 'Hi' and texts.gone in line


async def test_a_fault_is_one_sentence(caplog: pytest.LogCaptureFixture):
    *_, (box, _, line, *_) = await updates(
        page(Script(error=ZeroDivisionError())).send(REQUEST, '<b>', [], 'base', '', *VALUES)
    )
    assert box == '<b>' and 'the log of swiftlite app-ui says why' in line
    assert 'ZeroDivisionError' in caplog.text


async def test_stop_frees_the_request():
    partner = Script('Hel', None)
    chat_page = page(partner)
    seen = []
    async for update in chat_page.send(REQUEST, 'Hi', [], 'base', '', *VALUES):
        seen.append(update)
        if len(seen) == 2:
            again = await updates(chat_page.send(REQUEST, 'more', update[1], 'base', '', *VALUES))
            assert len(again) == 1 and len(partner.asked) == 1, 'one answer at a time; what is typed stays'
            chat_page.stop(REQUEST)
    assert texts_of(seen[-1][1]) == ['Hi', 'Hel'] and 'Stopped' in seen[-1][2] and partner.freed == 1


async def test_a_page_that_no_longer_listens_holds_nothing():
    partner = Script('Hel', None)
    chat_page = page(partner)
    events = chat_page.send(REQUEST, 'Hi', [], 'base', '', *VALUES)
    await anext(events)
    await asyncio.sleep(0.02)
    chat_page.stop(REQUEST)  # nobody asks `events` for more
    await asyncio.sleep(0.02)
    assert partner.freed == 1


async def test_retry_edit_and_undo():
    said = [shown('user', 'a'), shown('assistant', 'b'), shown('user', 'c'), shown('assistant', 'd')]
    partner = Script('new')
    chat_page = page(partner)
    *_, (_, chat, *_) = await updates(chat_page.retry(REQUEST, '', said, 'base', '', *VALUES))
    assert texts_of(chat) == ['a', 'b', 'c', 'new']
    change: Any = SimpleNamespace(index=0, value='A')
    *_, (_, chat, *_) = await updates(chat_page.edit(change, REQUEST, '', said, 'base', '', *VALUES))
    assert texts_of(chat) == ['A', 'new']
    change = SimpleNamespace(index=1, value='B')
    assert len(await updates(chat_page.edit(change, REQUEST, '', said, 'base', '', *VALUES))) == 1
    assert len(partner.asked) == 2, 'a changed answer is not answered'
    box, chat, *_ = chat_page.undo(REQUEST, '', said)
    assert (box, texts_of(chat)) == ('c', ['a', 'b'])
    box, chat, *_ = chat_page.undo(REQUEST, 'typed', said)
    assert box != 'c', 'what is typed stays'


async def test_retry_that_fails_keeps_the_old_answer():
    said = [shown('user', 'a'), shown('assistant', 'b')]
    partner = Script(error=EngineDeadError('The engine process died.'))
    *_, (_, chat, *_) = await updates(page(partner).retry(REQUEST, '', said, 'base', '', *VALUES))
    assert texts_of(chat) == ['a', 'b']


async def test_an_empty_setting_is_named():
    partner = Script('x')
    seen = await updates(page(partner).send(REQUEST, 'Hi', [], 'base', '', None, *VALUES[1:]))
    assert 'A field of the settings is empty' in seen[-1][2] and partner.asked == []


async def test_a_base_model_goes_on():
    partner = Script(' upon', ' a time', chats=False)
    completion = page(partner, kind=CompletionPage)
    seen = await updates(completion.go_on(REQUEST, 'Once', [], 'base', *VALUES))
    assert seen[-1][0] == 'Once upon a time' and seen[0][1] == ['Once']
    assert partner.asked[0][0] == 'Once'
    assert completion.take_back(REQUEST, 'Once upon a time', ['Once'])[:2] == ('Once', [])
    assert completion.clear(REQUEST, 'Once', [])[:2] == ('', ['Once'])
