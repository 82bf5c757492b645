"""The embedded model over HTTP: who it is, several turns, and a tool called, answered and reported."""

import json

import openai
import pytest

WEATHER = {
    'type': 'function',
    'function': {
        'name': 'get_weather',
        'description': 'Get the current weather of a city',
        'parameters': {
            'type': 'object',
            'properties': {'city': {'type': 'string', 'description': 'The name of the city'}},
            'required': ['city'],
        },
    },
}


@pytest.mark.parametrize('question', ['who are you?', '你是谁？'])
def test_it_says_who_it_is(tiny_chat: openai.OpenAI, question: str) -> None:
    options = {'model': 'tiny-model', 'messages': [{'role': 'user', 'content': question}]}
    whole = tiny_chat.chat.completions.create(**options).choices[0]
    assert 'tiny-chat' in whole.message.content and 'swiftlite' in whole.message.content
    assert whole.finish_reason == 'stop'
    pieces = [
        chunk.choices[0].delta.content or '' for chunk in tiny_chat.chat.completions.create(**options, stream=True)
    ]
    assert ''.join(pieces) == whole.message.content
    assert '\ufffd' not in ''.join(pieces) and len(pieces) > 5


def test_a_tool_is_called_and_its_result_reported(tiny_chat: openai.OpenAI) -> None:
    messages = [{'role': 'user', 'content': "What's the weather in Paris?"}]
    options = {'model': 'tiny-model', 'tools': [WEATHER]}
    whole = tiny_chat.chat.completions.create(messages=messages, **options).choices[0]
    assert whole.finish_reason == 'tool_calls' and whole.message.content is None
    (call,) = whole.message.tool_calls
    assert call.function.name == 'get_weather' and json.loads(call.function.arguments) == {'city': 'Paris'}
    chunks = [c.choices[0] for c in tiny_chat.chat.completions.create(messages=messages, **options, stream=True)]
    (streamed,) = [part for chunk in chunks for part in chunk.delta.tool_calls or []]
    assert (streamed.function.name, streamed.function.arguments) == ('get_weather', call.function.arguments)
    assert chunks[-1].finish_reason == 'tool_calls'
    messages += [whole.message, {'role': 'tool', 'tool_call_id': call.id, 'content': '{"condition": "sunny"}'}]
    report = tiny_chat.chat.completions.create(messages=messages, **options).choices[0]
    assert 'Paris' in report.message.content and 'sunny' in report.message.content


def test_a_question_without_need_of_the_tool(tiny_chat: openai.OpenAI) -> None:
    answer = tiny_chat.chat.completions.create(
        model='tiny-model', tools=[WEATHER], messages=[{'role': 'user', 'content': 'who are you?'}]
    ).choices[0]
    assert answer.message.tool_calls is None and 'tiny-chat' in answer.message.content
