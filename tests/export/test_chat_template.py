"""The Jinja text written for a template renders as the template does."""

import pytest
from transformers import AutoTokenizer

from swiftlite.errors import SwiftliteError
from swiftlite.export.chat_template import chat_template, jinja
from swiftlite.registry.templates import TEMPLATES
from swiftlite.template import get_template

USER, REPLY = {'role': 'user', 'content': 'What is "a"?\n{{ x }}'}, {'role': 'assistant', 'content': "It's b."}
SYSTEM = {'role': 'system', 'content': 'Be kind.'}
TOOL = {'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {'x': {}}}}}
CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': {'x': '你'}}}
CASES = {
    'one turn': ([USER], None),
    'answered': ([USER, REPLY], None),
    'turns': ([USER, REPLY, USER], None),
    'system': ([SYSTEM, USER, REPLY, USER], None),
    'tools': ([USER], [TOOL]),
    'system and tools': ([SYSTEM, USER], [TOOL, TOOL]),
    'calls': ([USER, {'role': 'assistant', 'content': '', 'tool_calls': [CALL, CALL]}], [TOOL]),
    'said and called': ([USER, {**REPLY, 'tool_calls': [CALL]}], [TOOL]),
    'results': (
        [
            USER,
            {'role': 'assistant', 'content': '', 'tool_calls': [CALL, CALL]},
            {'role': 'tool', 'content': '1'},
            {'role': 'tool', 'content': '2'},
            USER,
            REPLY,
        ],
        [TOOL],
    ),
}


@pytest.fixture(scope='module')
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.mark.parametrize('messages, tools', CASES.values(), ids=CASES)
@pytest.mark.parametrize('name', TEMPLATES)
@pytest.mark.parametrize('options', [{}, {'default_system': 'Speak "plainly".'}], ids=['own', 'system'])
def test_renders_alike(tokenizer, name, options, messages, tools):
    try:
        template = get_template(name, tokenizer, **options)
        wanted = [template.render(messages, tools, add_generation_prompt=flag) for flag in (False, True)]
    except SwiftliteError:
        return  # the template itself does not take these messages
    text = jinja(template)
    for flag in (False, True):
        found = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=text, tokenize=False, add_generation_prompt=flag
        )
        assert found == wanted[flag]


def test_the_tokenizers_own_is_kept_where_it_fits(tokenizer):
    assert chat_template(get_template('tiny-chat', tokenizer)) is None
    assert chat_template(get_template('tiny-chat', tokenizer, default_system='Be kind.')) is not None
    assert chat_template(get_template('qwen', tokenizer)) is not None
