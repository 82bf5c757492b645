"""The page as its users see it, in headless Chromium."""

from typing import Any

from tests.ui.browser import GROWTH, User, wait_for
from tests.ui.conftest import PageThread

WHO = '我是tiny-chat，由swiftlite开发的人工智能助手。有什么可以帮您？'
PICTURE = '![x](https://example.com/pixel.png) <img src="https://example.com/b.png">'


def test_streamed_chinese_answer_outlives_a_reload(served: PageThread, chromium: Any):
    with User(chromium, served.url, locale='zh-CN') as user:
        assert user.page.url.endswith('/zh/')
        user.page.evaluate(GROWTH)
        assert user.ask('你是谁？') == WHO
        seen = user.page.evaluate('[...window.seen]')
        assert len([text for text in seen if text and WHO.startswith(text.strip())]) > 2, 'it came in pieces'
        assert '词元/秒' in user.status
        user.page.fill('#box textarea', '还没发送')
        user.page.reload()
        user.ready()
        wait_for(lambda: user.answers == [WHO], 'the conversation is there again')
        assert (user.questions, user.chats, user.typed) == (['你是谁？'], ['你是谁？'], '还没发送')
        user.page.click('[data-do=lang]')
        user.page.wait_for_url('**/en/')
        user.ready()
        assert user.page.inner_text('#send') == 'Send'
        wait_for(lambda: user.answers == [WHO], 'the conversation is in the other language, too')
        user.page.goto(served.url)
        assert user.page.url.endswith('/en/'), 'the choice is remembered'
        assert (user.outside(), user.errors) == ([], [])


def test_stop_retry_edit_and_take_back(served: PageThread, chromium: Any):
    with User(chromium, served.url) as user:
        user.choose('noise')
        user.send('Tell me a story.')
        user.page.wait_for_selector('#stop')
        wait_for(lambda: len(''.join(user.answers)) > 20, 'it writes')
        user.page.keyboard.press('Escape')
        user.ended()
        assert user.status.startswith('Stopped')
        wait_for(lambda: served.running() == 0, 'the request is gone')
        cut = user.answers[-1]
        user.choose('tiny-chat')
        user.page.click('[aria-label=Retry]')
        wait_for(lambda: user.answers != [cut] and not user.status.startswith('Stopped'), 'another answer')
        user.ended()
        assert user.questions == ['Tell me a story.'] and len(user.answers) == 1
        user.page.click('.message-buttons-right button[aria-label=Edit]')
        user.page.fill('#chat .message textarea', 'Who are you?')
        user.page.click('.message-buttons-right button[aria-label=Submit]')
        wait_for(lambda: user.answers == ['I am tiny-chat, an AI assistant developed by swiftlite.'], 'a new answer')
        assert user.questions == ['Who are you?']
        user.ended()
        user.page.click('[aria-label=Undo]')
        wait_for(lambda: user.typed == 'Who are you?', 'the question is in the box again')
        assert user.answers == []
        assert (user.outside(), user.errors) == ([], [])


def test_conversations_and_adapters(served: PageThread, chromium: Any):
    with User(chromium, served.url) as user:
        plain = user.ask('Who are you?')
        user.page.click('[data-do=new]')
        wait_for(lambda: user.answers == [], 'an empty conversation')
        user.choose('noise')
        user.page.click('[data-do=panel]')
        user.page.fill('#max-tokens input[type=number]', '8')
        user.page.press('#max-tokens input[type=number]', 'Tab')
        noisy = user.ask('你是谁？')
        assert noisy != WHO and user.status.startswith('Cut at the longest reply · 8 tokens')
        wait_for(lambda: user.chats == ['你是谁？', 'Who are you?'], 'both are listed')
        user.page.click('#chats .open:has-text("Who are you?")')
        wait_for(lambda: user.answers == [plain], 'the first one is open')
        assert user.page.input_value('#model input') == 'tiny-chat'
        user.page.click('#chats .row:has-text("Who are you?") [aria-label=Rename]')
        user.page.fill('#chats input', 'Names')
        user.page.press('#chats input', 'Enter')
        assert user.chats == ['你是谁？', 'Names']
        user.page.click('#chats .row:has-text("你是谁？") [aria-label=Delete]')
        user.page.click('#chats .row:has-text("Delete?") .sure')
        assert user.chats == ['Names'] and user.answers == [plain]
        user.page.click('[data-do=new]')
        wait_for(lambda: user.answers == [], 'an empty conversation')
        user.choose('noise')
        user.page.click('#reset')
        wait_for(lambda: user.page.input_value('#max-tokens input[type=number]') == '1024', "the model's defaults")
        user.send('Tell me a story.')
        wait_for(lambda: len(''.join(user.answers)) > 20, 'it writes')
        user.page.click('#chats .open:has-text("Names")')
        wait_for(lambda: user.answers == [plain] and user.page.is_visible('#send'), 'another one is opened meanwhile')
        assert served.running() == 0
        user.page.click('#chats .open:has-text("Tell me a story.")')
        wait_for(lambda: len(''.join(user.answers)) > 20, 'what was written is kept')
        user.page.click('#chats .open:has-text("Names")')
        wait_for(lambda: user.answers == [plain], 'back again')
        user.send(PICTURE)
        wait_for(lambda: user.page.locator('#chat .user.message img').count() > 0, 'it is shown')
        user.page.wait_for_timeout(200)
        assert (user.outside(), user.errors) == ([], []), 'a picture from elsewhere is not fetched'


def test_two_users_and_a_closed_tab(served: PageThread, chromium: Any):
    with User(chromium, served.url) as one, User(chromium, served.url) as other:
        one.choose('noise')
        one.send('A secret: 4711.')
        wait_for(lambda: served.running() == 1, 'the first is being answered')
        assert other.ask('Who are you?').startswith('I am tiny-chat'), 'both are answered at once'
        assert other.questions == ['Who are you?'] and other.chats == ['Who are you?']
        other.page.reload()
        other.ready()
        wait_for(lambda: other.questions == ['Who are you?'], 'only its own')
        assert '4711' not in other.page.content()
        if not served.running():  # on a slow machine it is over by now
            one.send('Tell me a story.')
            wait_for(lambda: served.running() == 1, 'the first is being answered again')
        one.page.close()
        wait_for(lambda: served.running() == 0, 'a closed tab frees its request')


def test_an_error_loses_nothing(served: PageThread, chromium: Any):
    with User(chromium, served.url) as user:
        long = 'word ' * 3000
        user.page.fill('#box textarea', long)
        user.page.press('#box textarea', 'Enter')
        user.page.wait_for_selector('#status [data-state=error]')
        assert 'but the model takes 1024 in all: shorten the message' in user.status
        wait_for(lambda: user.typed == long, 'what was typed is in the box')
        assert user.ask('Who are you?').startswith('I am tiny-chat')


def test_phone(served: PageThread, chromium: Any):
    with User(chromium, served.url, width=390, height=844, locale='zh-CN') as user:
        assert user.ask('你是谁？') == WHO
        assert not user.page.is_visible('[data-do=new]')
        for drawer, inside in (('menu', '[data-do=new]'), ('panel', '#reset')):
            user.page.click(f'#top [data-do={drawer}]')
            user.page.wait_for_selector(inside)
            assert user.page.evaluate('document.documentElement.scrollWidth') == 390
            user.page.keyboard.press('Escape')
            user.page.wait_for_selector(inside, state='hidden')
        box = user.page.locator('#ask').bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= 390 and box['y'] + box['height'] <= 844


HOSTILE = """
<img src=x onerror="window.hacked = 'img'"><svg onload="window.hacked = 'svg'"><a xlink:href="javascript:0">s</a></svg>
<details open ontoggle="window.hacked = 'details'">d</details><script>window.hacked = 'script'</script>
<iframe srcdoc="<script>parent.hacked = 'iframe'</script>"></iframe><style>body { display: none }</style>
<custom-tag onclick="window.hacked = 'tag'" onfocus="window.hacked = 'focus'" autofocus tabindex=1>t</custom-tag>
[link](javascript:window.hacked='link') <a href="javascript:window.hacked='a'">a</a> <form action="javascript:1">f</form>
$$\\href{javascript:window.hacked='latex'}{x}$$ $$\\htmlStyle{}{x}$$

```mermaid
graph TD; A["<img src=x onerror=window.hacked='mermaid'>"]; click A href "javascript:window.hacked='node'"
```

```html
<img src=x onerror="window.hacked = 'code'">
```
"""


def test_what_a_model_or_a_user_writes_is_never_run(served: PageThread, chromium: Any):
    kept = {
        'title': HOSTILE,
        'named': True,
        'messages': [
            {'role': 'user', 'content': [{'type': 'text', 'text': HOSTILE}]},
            {'role': 'assistant', 'content': [{'type': 'text', 'text': HOSTILE}], 'metadata': {'title': HOSTILE}},
            {'role': 'assistant', 'content': [{'type': 'text', 'text': f'the end {HOSTILE}'}]},
        ],
        'model': 'tiny-chat',
        'system': HOSTILE,
        'updated': 1,
    }
    with User(chromium, served.url) as user:
        user.page.evaluate("kept => localStorage.setItem('swiftlite.chat.hostile', JSON.stringify(kept))", kept)
        user.page.reload()
        user.ready()
        user.page.click('#chats .open')
        wait_for(lambda: any('the end' in text for text in user.answers), 'the conversation is shown')
        user.page.wait_for_timeout(500)
        found = user.page.evaluate(
            """() => [...document.querySelectorAll('#chat *')].flatMap(place => [...place.attributes]
                 .filter(one => /^on/i.test(one.name) || /^\\s*javascript:/i.test(one.value))
                 .map(one => place.tagName + ' ' + one.name))"""
        )
        scripts = user.page.locator('#chat script, #chat iframe, #chat style:not(svg style)').count()
        assert (found, scripts, user.page.evaluate('window.hacked ?? null')) == ([], 0, None)
        assert user.page.is_visible('#chat') and user.outside() == []
