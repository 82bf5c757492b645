"""What the page shows, and what the template gets of it."""

import inspect

import pytest

from swiftlite.ui.messages import answer_messages, conversation, is_thought, shown, split_thought, text_of
from swiftlite.ui.texts import CHINESE, ENGLISH

ANSWER = '<think>\nFirst, 17.\nThen 4.\n</think>\n\nIt is 21.'


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('', (None, '', True)),
        ('Hello', (None, 'Hello', True)),
        ('<th', (None, '', False)),
        ('<think>', ('', '', False)),
        ('<think>\nHm', ('Hm', '', False)),
        (ANSWER, ('First, 17.\nThen 4.', 'It is 21.', True)),
        ('a <think>b</think>', (None, 'a <think>b</think>', True)),
    ],
)
def test_thoughts_are_split_off(text: str, parts: tuple[str | None, str, bool]):
    assert split_thought(text) == parts


def test_a_thought_is_folded_when_it_is_over():
    thinking = answer_messages('<think>\nHm', False, 'Thinking…', 'Thought')
    assert [text_of(message) for message in thinking] == ['Hm']
    assert thinking[0]['metadata'] == {'title': 'Thinking…', 'status': 'pending'}
    thought, said = answer_messages(ANSWER, True, 'Thinking…', 'Thought')
    assert thought['metadata'] == {'title': 'Thought', 'status': 'done'}
    assert is_thought(thought) and not is_thought(said) and text_of(said) == 'It is 21.'
    cut = answer_messages('<think>\nHm', True, 'Thinking…', 'Thought')
    assert cut[0]['metadata']['status'] == 'done', 'also where it was stopped'


def test_no_thought_without_words():
    assert [text_of(m) for m in answer_messages('<think>\n\n</think>\n\nYes.', True, '', '')] == ['Yes.']
    assert answer_messages('', True, '', '') == []
    assert [text_of(m) for m in answer_messages('<thi', True, '', '')] == ['<thi'], 'half a tag was all it said'


@pytest.mark.parametrize('text', ['  indented\n    more', ANSWER, '小黄 🐤', '\n\nspace\n'])
def test_the_template_gets_what_the_model_wrote(text: str):
    messages = [shown('user', text), *answer_messages(text, True, 'Thinking…', 'Thought'), shown('user', 'And now?')]
    assert conversation(messages, ' Be brief. ') == [
        {'role': 'system', 'content': ' Be brief. '},
        {'role': 'user', 'content': text},
        {'role': 'assistant', 'content': text},
        {'role': 'user', 'content': 'And now?'},
    ]
    assert conversation(messages[:1])[0]['role'] == 'user', 'an empty system prompt leaves the template its own'


def test_languages_say_the_same():
    for name in ENGLISH.__dataclass_fields__:
        english, chinese = getattr(ENGLISH, name), getattr(CHINESE, name)
        assert english.strip() and chinese.strip()
        assert english.count('{') == chinese.count('{'), name
        if name not in ('top_p', 'top_k'):
            assert english != chinese
    assert list(inspect.signature(type(ENGLISH)).parameters) == list(vars(CHINESE))
