"""Forced calls: what the grammars let through, in every format, and what reaches the client."""

import functools
import json
from types import SimpleNamespace

import llguidance
import llguidance.hf
import openai
import pytest
from transformers import AutoTokenizer

from swiftlite.hub import asset_path
from swiftlite.serve.errors import ApiError
from swiftlite.serve.tool_grammar import CallGrammar
from swiftlite.template.tools import FORMATS

CITY = {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']}
SUM = {'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'integer'}}, 'required': ['a', 'b']}


def tool(name: str, parameters: dict | None, **extra) -> dict:
    return {'type': 'function', 'function': {'name': name, 'parameters': parameters} | extra}


TOOLS = [tool('get_weather', CITY), tool('相加', SUM), tool('now', None)]
PARIS, FIVE = ('get_weather', {'city': 'Paris'}), ('相加', {'a': 2, 'b': 3})


@pytest.fixture(scope='module')
def tokenizer():
    return AutoTokenizer.from_pretrained(asset_path('tiny-chat'))


def written(format_name: str, calls: list) -> str:
    """The calls as a model writes them: without ids."""
    made = [{'function': {'name': name, 'arguments': arguments}} for name, arguments in calls]
    text = FORMATS[format_name].calls(made, ['0' * 9] * len(calls), False)
    return text.replace(', "id": "000000000"', '')


@functools.cache
def vocabulary(tokenizer) -> llguidance.LLTokenizer:
    return llguidance.hf.from_tokenizer(tokenizer)


def accepts(tokenizer, grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(vocabulary(tokenizer), llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize('name', list(FORMATS))
def test_what_the_template_writes_is_accepted(tokenizer, name: str) -> None:
    grammar = CallGrammar(FORMATS[name], TOOLS, tokenizer)
    for calls in ([PARIS], [FIVE], [('now', {})]):
        assert accepts(tokenizer, grammar.forced(True), written(name, calls))
        assert accepts(tokenizer, grammar.forced(False), written(name, calls))
    wrong = [('get_weather', {'town': 'Paris'}), ('get_weather', {'city': 5}), ('get_weather', {'city': 'a', 'b': 1})]
    for call in [*wrong, ('unknown', {}), ('now', {'a': 1}), ('get_weather', {})]:
        assert not accepts(tokenizer, grammar.forced(True), written(name, [call])), call
    assert not accepts(tokenizer, grammar.forced(True), 'Hello')
    assert not accepts(tokenizer, grammar.forced(True), 'Hello ' + written(name, [PARIS]))


@pytest.mark.parametrize('name', [name for name in FORMATS if name != 'llama3'])
def test_several_calls(tokenizer, name: str) -> None:
    grammar = CallGrammar(FORMATS[name], TOOLS, tokenizer)
    both = written(name, [PARIS, FIVE])
    assert accepts(tokenizer, grammar.forced(True), both)
    assert not accepts(tokenizer, grammar.forced(False), both)


def test_calls_or_an_answer(tokenizer) -> None:
    grammar = CallGrammar(FORMATS['hermes'], TOOLS, tokenizer).or_answer(SUM, True)
    assert accepts(tokenizer, grammar, written('hermes', [PARIS, PARIS]))
    assert accepts(tokenizer, grammar, '{"a": 1, "b": 2}')
    assert not accepts(tokenizer, grammar, '{"a": 1}') and not accepts(tokenizer, grammar, 'Hello')


def test_strict_calls_in_text(tokenizer) -> None:
    grammar = CallGrammar(FORMATS['hermes'], TOOLS, tokenizer).in_text()
    call = written('hermes', [PARIS])
    for text in ('Hello there', call, f'Well:\n{call}', f'{call}\n{call} and more', 'a < b {"name": 1}'):
        assert accepts(tokenizer, grammar, text), text
    for text in ('<tool_call>', call.replace('city', 'town'), call.replace('</tool_call>', '')):
        assert not accepts(tokenizer, grammar, text), text
    with pytest.raises(ApiError, match='strict tools need tool_choice "required"'):
        CallGrammar(FORMATS['llama3'], TOOLS, tokenizer).in_text()


def test_objects_stay_open_where_they_say_so(tokenizer) -> None:
    anything = CallGrammar(FORMATS['hermes'], [tool('f', CITY | {'additionalProperties': True})], tokenizer)
    assert accepts(tokenizer, anything.forced(False), written('hermes', [('f', {'city': 'a', 'more': [1]})]))
    nested = {'type': 'object', 'properties': {'to': CITY, 'all': {'type': 'array', 'items': CITY}}}
    grammar = CallGrammar(FORMATS['hermes'], [tool('f', nested)], tokenizer).forced(False)
    assert accepts(tokenizer, grammar, written('hermes', [('f', {'to': {'city': 'a'}, 'all': [{'city': 'b'}]})]))
    assert not accepts(tokenizer, grammar, written('hermes', [('f', {'to': {'city': 'a', 'b': 1}})]))
    combined = {'type': 'object', 'allOf': [CITY, SUM]}
    grammar = CallGrammar(FORMATS['hermes'], [tool('f', combined)], tokenizer).forced(False)
    assert accepts(tokenizer, grammar, written('hermes', [('f', {'city': 'a', 'a': 1, 'b': 2})]))


def test_tokenizers_without_marks(tokenizer) -> None:
    """Where the mark of a call is plain text, it is matched as such."""
    plain = SimpleNamespace(get_added_vocab=dict)
    grammar = CallGrammar(FORMATS['hermes'], TOOLS, plain).forced(False)
    assert '<[' not in grammar and '"<tool_call>\\n' in grammar


def ask(client: openai.OpenAI, question: str, **options) -> tuple:
    """What the answer says and calls."""
    messages = [{'role': 'user', 'content': question}]
    answer = client.chat.completions.create(model='tiny-model', messages=messages, max_tokens=80, **options).choices[0]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in answer.message.tool_calls or []]
    assert answer.finish_reason == ('tool_calls' if calls else 'stop')
    return answer.message.content, calls


def test_every_choice(tiny_chat: openai.OpenAI) -> None:
    tools = [tool('get_weather', CITY, description='Get the current weather of a city'), tool('add_numbers', SUM)]
    weather, who = "What's the weather in Paris?", 'who are you?'
    assert ask(tiny_chat, weather, tools=tools) == (None, [PARIS])
    said, calls = ask(tiny_chat, who, tools=tools)
    assert 'tiny-chat' in said and not calls
    assert ask(tiny_chat, weather, tools=tools, tool_choice='required') == (None, [PARIS])
    named = {'type': 'function', 'function': {'name': 'add_numbers'}}
    (call,) = ask(tiny_chat, weather, tools=tools, tool_choice=named)[1]
    assert call[0] == 'add_numbers' and all(isinstance(value, int) for value in call[1].values())
    said, calls = ask(tiny_chat, weather, tools=tools, tool_choice='none')
    assert said and not calls
    two = "What's the weather in Paris? What's the weather in Rome?"
    assert ask(tiny_chat, two, tools=tools, tool_choice='required')[1] == [PARIS, ('get_weather', {'city': 'Rome'})]
    assert ask(tiny_chat, two, tools=tools, tool_choice='required', parallel_tool_calls=False)[1] == [PARIS]
    strict = [tool('get_weather', CITY, strict=True, description='Get the current weather of a city')]
    assert ask(tiny_chat, weather, tools=strict) == (None, [PARIS])
    assert 'tiny-chat' in ask(tiny_chat, who, tools=strict)[0]


def test_tools_beside_a_schema(tiny_chat: openai.OpenAI) -> None:
    tools = [tool('get_weather', CITY, description='Get the current weather of a city')]
    schema = {
        'type': 'object',
        'properties': {'yes': {'type': 'boolean'}},
        'required': ['yes'],
        'additionalProperties': False,
    }
    form = {'type': 'json_schema', 'json_schema': {'name': 'answer', 'schema': schema}}
    assert ask(tiny_chat, "What's the weather in Paris?", tools=tools, response_format=form) == (None, [PARIS])
    said, calls = ask(tiny_chat, 'Say it in JSON.', tools=tools, response_format=form)
    assert calls or set(json.loads(said)) == {'yes'}
    said, calls = ask(tiny_chat, 'who are you?', tools=tools, tool_choice='none', response_format=form)
    assert set(json.loads(said)) == {'yes'} and not calls
