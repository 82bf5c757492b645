"""The Jinja text written for a template renders as the template does."""

import pytest
from transformers import AutoTokenizer

from swiftlite.errors import SwiftliteError
from swiftlite.hub import local_path
from swiftlite.registry.templates import TEMPLATES
from swiftlite.template import get_template
from swiftlite.template.writer import chat_template, jinja

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
    'one call': ([USER, {'role': 'assistant', 'content': '', 'tool_calls': [{**CALL, 'id': 'call_00x-12'}]}], [TOOL]),
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
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(local_path('tiny-chat'))
    tokenizer.bos_token = '<|endoftext|>'  # any, so that templates that need one render
    tokenizer.add_special_tokens({'extra_special_tokens': ['<|eot_id|>']})
    return tokenizer


@pytest.mark.parametrize('messages, tools', CASES.values(), ids=CASES)
@pytest.mark.parametrize('name', TEMPLATES)
@pytest.mark.parametrize('options', [{}, {'default_system': 'Speak "plainly".'}], ids=['own', 'system'])
def test_renders_alike(tokenizer, name, options, messages, tools):
    try:
        template = get_template(name, tokenizer, **options)
        wanted = [template.render(messages, tools, add_generation_prompt=flag) for flag in (False, True)]
    except SwiftliteError as error:
        assert any(
            said in str(error)
            for said in ('no tools', 'in turn', 'one tool call', 'one user message', 'no system turn')
        )
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
