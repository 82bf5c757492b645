"""A chat template that loops without end, or writes without end, is stopped; what others write is the same."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from swiftlite.errors import SwiftliteError
from swiftlite.template import bounds, from_jinja
from swiftlite.template.detection import detect
from tests.template.conftest import UPSTREAM
from tests.template.test_template import TOOLS, assistant, call, result, system, user

LOOP = (
    '{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}'
)
GROWS = '{%% set n = namespace(x=%s) %%}{%% for _ in range(99) %%}%s{%% endfor %%}'
CALLED = [user('a'), {**assistant(''), 'tool_calls': [call('add', {'x': 1})]}, result('2'), assistant('b')]


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer('qwen')


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(bounds, 'STEPS', 20_000)
    monkeypatch.setattr(bounds, 'TEXT', 100_000)


@pytest.mark.parametrize(
    'text',
    [
        LOOP,
        '{% for a in range(99999) if a < 0 %}{% endfor %}' * 2,
        '{% macro f(n) %}{{ f(n + 1) if n < 99 }}{{ f(n + 1) if n < 99 }}{% endmacro %}{{ f(0) }}',
        '{%- for x in range(99) recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}',
    ],
)
def test_loops_without_end(tokenizer, few, text):
    with pytest.raises(SwiftliteError, match='does not come to an end: it was stopped after 20,000 steps'):
        from_jinja(text, tokenizer).encode([user('a')])


@pytest.mark.parametrize(
    'text',
    [
        "{{ 'a' * 10 ** 9 }}",
        '{{ messages[0].content * 10 ** 9 }}',
        '{{ (messages * 10 ** 9)|length }}',
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        '{{ messages[0].content.ljust(10 ** 9) }}',
        '{{ messages[0].content|center(10 ** 9) }}',
        "{{ (messages[0].content * 9999)|replace('a', 'b' * 9999) }}",
        "{{ (['a' * 9999] * 9999)|join(',') }}",
        "{{ ','.join(['a' * 9999] * 9999) }}",
        GROWS % ('"a"', '{% set n.x = n.x ~ n.x %}'),
        GROWS % ('"a"', '{% set n.x = n.x + n.x %}'),
        GROWS % ('"a"', '{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}'),
        '{% for _ in range(9999) %}twenty characters ..{% endfor %}',
        '{{ messages[0].content * 60000 }}' * 2,
    ],
)  # fmt: skip
def test_text_without_end(tokenizer, few, text):
    with pytest.raises(SwiftliteError, match='does not come to an end: it makes more than 100,000 characters'):
        from_jinja(text, tokenizer).encode([user('a')])


@pytest.mark.parametrize('text', ['{{ 9 ** 999999 }}', GROWS % (9, '{% set n.x = n.x * n.x %}')])
def test_numbers_without_end(tokenizer, few, text):
    with pytest.raises(SwiftliteError, match='too large a number'):
        from_jinja(text, tokenizer).encode([user('a')])


def test_time_ends_and_the_next_conversation_is_well(tokenizer, monkeypatch):
    """In another thread as in this one, while others render."""
    template = from_jinja(
        "{% if messages[0].content == 'hang' %}" + LOOP + '{% endif %}{{ messages[0].content }}', tokenizer
    )
    monkeypatch.setattr(bounds, 'SECONDS', 0.2)

    def write(said):
        try:
            return template.render([user(said)])
        except SwiftliteError as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        hung, *well = threads.map(write, ['hang', 'a', 'b'])
    assert hung == 'the chat template does not come to an end: it was stopped after 0.2 s'
    assert well == ['a', 'b'] and write('hang') == hung and write('c') == 'c'
    assert threading.active_count() < 50


def test_a_checkpoint_whose_own_template_hangs_says_so(tokenizer, few):
    tokenizer.chat_template = LOOP
    with pytest.raises(SwiftliteError, match='does not come to an end'):
        detect(tokenizer)


def test_it_writes_the_same(make_tokenizer):
    """Whatever is counted: as transformers renders it, before and after."""
    texts = [
        '{%- for m in messages if m.role != "system" recursive -%}{{ loop.index }}/{{ loop.length }} '
        '{{ m.content|trim }};{{ loop.last }}\n{%- else -%}none{%- endfor -%}',
        '{% macro say(x, y=2) %}<{{ x ~ y }}>{{ caller() if caller }}{% endmacro %}{% call say(1) %}in{% endcall %}'
        '{{ say("a" * 3, y=7 % 4) }}{{ 2 ** 5 + 1 }}{{ [1] + [2] }}',
        '{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content.replace("a", "b").ljust(5) }}'
        '{{ "%-5s|" % m.role }}{{ "{:>4}".format(3) }}{% break %}{% endfor %}{{ none_such }}',
        '{% set n = namespace(k=0) %}{% macro once() %}{% set n.k = n.k + 1 %}{{ n.k }}{% endmacro %}'
        '{{ once().replace("1", "c") }}{{ n.k }}{{ ",".join(["x", "y"]) }}'
        '{{ ["x", 3]|join("-") }}{{ "a\nb"|indent(2) }}{{ "é"|center(5) }}{{ 1.5 * 2 }}',
    ]
    talk = [system('s'), user('a b'), assistant('b c'), user('d')]
    for name in ('qwen', 'llama3_1', 'mistral-nemo', 'qwen3'):
        tokenizer = make_tokenizer(name)
        for text in [*texts, UPSTREAM.get(name)]:
            if text is None:
                continue
            for messages, tools in ((talk, None), (CALLED, TOOLS)):
                try:
                    wanted = plainly(tokenizer, messages, text, tools)
                except Exception as error:
                    assert text not in texts
                    with pytest.raises(type(error)):
                        bounds.render(tokenizer, messages, text, tools=tools, add_generation_prompt=True)
                    continue
                assert bounds.render(tokenizer, messages, text, tools=tools, add_generation_prompt=True) == wanted


def plainly(tokenizer, messages, text, tools):
    """Rendered by a template that transformers compiles anew, where nothing is counted."""
    from transformers.utils import chat_template_utils

    chat_template_utils._compile_jinja_template.cache_clear()
    found = tokenizer.apply_chat_template(
        messages, chat_template=text, tools=tools, tokenize=False, add_generation_prompt=True
    )
    chat_template_utils._compile_jinja_template.cache_clear()
    return found
