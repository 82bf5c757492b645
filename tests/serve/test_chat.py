import re

import httpx
import openai
import pytest

from tests.served import ServerThread, sse

HELLO = [{'role': 'user', 'content': 'Hello there!'}]


def collect(stream: openai.Stream) -> dict[int, dict]:
    """Choices of a stream put together: role, content, logprobs, finish_reason, in the shape of a whole response."""
    choices: dict[int, dict] = {}
    for chunk in stream:
        for choice in chunk.choices:
            first = choice.index not in choices
            made = choices.setdefault(choice.index, {'content': '', 'logprobs': [], 'finish_reason': None})
            assert made['finish_reason'] is None, 'a chunk came after the finish'
            assert (choice.delta.role == 'assistant') == first, 'the role comes first and once'
            made['content'] += choice.delta.content or ''
            made['logprobs'] += choice.logprobs.content if choice.logprobs else []
            made['finish_reason'] = choice.finish_reason
    return choices


@pytest.mark.parametrize(
    'options',
    [
        {'max_tokens': 24},
        {'max_tokens': 24, 'n': 3, 'seed': 7, 'temperature': 1.0},
        {'max_tokens': 12, 'logprobs': True, 'top_logprobs': 3},
        {'max_completion_tokens': 40, 'temperature': 2.0, 'seed': 1, 'stop': ['a', 'e', 'i']},
        {'max_tokens': 24, 'extra_body': {'top_k': 5, 'min_p': 0.01, 'repetition_penalty': 1.2}, 'seed': 3},
    ],
)
def test_streamed_equals_whole(client: openai.OpenAI, options: dict) -> None:
    whole = client.chat.completions.create(model='tiny-model', messages=HELLO, **options)
    streamed = collect(client.chat.completions.create(model='tiny-model', messages=HELLO, stream=True, **options))
    assert len(whole.choices) == len(streamed) == options.get('n', 1)
    for choice in whole.choices:
        assert streamed[choice.index]['content'] == choice.message.content
        assert streamed[choice.index]['finish_reason'] == choice.finish_reason
        assert streamed[choice.index]['logprobs'] == (choice.logprobs.content if choice.logprobs else [])


def test_seeds_repeat_and_samples_differ(client: openai.OpenAI) -> None:
    def ask(**options) -> list[str]:
        options = {'max_tokens': 16, 'temperature': 1.5} | options
        answer = client.chat.completions.create(model='tiny-model', messages=HELLO, **options)
        return [choice.message.content for choice in answer.choices]

    many = ask(n=4, seed=11)
    assert many == ask(n=4, seed=11)
    assert many[0] == ask(seed=11)[0]
    assert len(set(many)) > 1
    assert many != ask(n=4, seed=12)


def test_usage_counts_the_prompt_once(client: openai.OpenAI, server: ServerThread) -> None:
    body = {'messages': HELLO}
    prompt = httpx.post(f'{server.url}/tokenize', json=body).json()['count']
    options = {'model': 'tiny-model', 'messages': HELLO, 'n': 3, 'max_tokens': 5, 'extra_body': {'ignore_eos': True}}
    usage = client.chat.completions.create(**options).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 15, prompt + 15)
    *chunks, last = client.chat.completions.create(**options, stream=True, stream_options={'include_usage': True})
    assert last.choices == [] and last.usage.completion_tokens == 15 and last.usage.prompt_tokens == prompt
    assert all(chunk.usage is None for chunk in chunks)
    plain = client.chat.completions.create(**options, stream=True)
    assert all('usage' not in chunk.model_fields_set and chunk.choices for chunk in plain)


def test_cached_tokens_are_reported(client: openai.OpenAI) -> None:
    long = [{'role': 'user', 'content': 'cached tokens are reported ' * 6}]
    first, second = (
        client.chat.completions.create(model='tiny-model', messages=long, max_tokens=2).usage.prompt_tokens_details
        for _ in range(2)
    )
    assert first.cached_tokens == 0
    assert second.cached_tokens >= 64


def test_default_length_is_the_rest_of_the_context(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model='tiny-model', messages=HELLO, extra_body={'ignore_eos': True})
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == 'length'


def test_logprobs_are_those_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model='tiny-model', messages=HELLO, max_tokens=6, logprobs=True, top_logprobs=4, temperature=0
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 6
    for token in content:
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].logprob == token.logprob, 'greedy takes the most likely'
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True) and all(value <= 0 for value in values)
        assert bytes(token.bytes).decode() == token.token
    bare = client.chat.completions.create(model='tiny-model', messages=HELLO, max_tokens=6, logprobs=True)
    assert [t.token for t in bare.choices[0].logprobs.content] == [t.token for t in content]
    assert all(t.top_logprobs == [] for t in bare.choices[0].logprobs.content)


def test_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    def ask(**extra):
        options = {'model': 'tiny-model', 'messages': HELLO, 'max_tokens': 80, 'temperature': 1.0, 'seed': 4}
        return client.chat.completions.create(**options, extra_body={'ignore_eos': True} | extra).choices[0]

    whole = ask().message.content
    stop = re.findall('[a-zA-Z]{2}', whole)[1]
    cut = ask(stop=stop)
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == 'stop' and cut.stop_reason == stop
    kept = ask(stop=['never', stop], include_stop_str_in_output=True)
    assert kept.message.content == cut.message.content + stop


def test_logit_bias_and_stop_token_ids(client: openai.OpenAI) -> None:
    options = {'model': 'tiny-model', 'messages': HELLO, 'max_tokens': 8, 'logit_bias': {'70': 100}}
    extra = {'return_token_ids': True}
    answer = client.chat.completions.create(**options, extra_body=extra)
    assert answer.choices[0].token_ids == [70] * 8
    assert len(answer.prompt_token_ids) == answer.usage.prompt_tokens
    stopped = client.chat.completions.create(**options, extra_body=extra | {'stop_token_ids': [70]})
    assert stopped.usage.completion_tokens == 1 and stopped.choices[0].finish_reason == 'stop'


def test_system_developer_parts_and_history(server: ServerThread) -> None:
    def ids(messages: list[dict], **options) -> list[int]:
        answer = httpx.post(f'{server.url}/tokenize', json={'messages': messages, **options})
        assert answer.status_code == 200, answer.text
        return answer.json()['tokens']

    parts = [{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]
    assert ids([{'role': 'user', 'content': parts}]) == ids([{'role': 'user', 'content': 'a\nb'}])
    assert ids([{'role': 'developer', 'content': 's'}, *HELLO]) == ids([{'role': 'system', 'content': 's'}, *HELLO])
    expected = server.service.template.encode([{'role': 'system', 'content': 's'}, *HELLO])
    assert ids([{'role': 'system', 'content': 's'}, *HELLO]) == expected


def test_continue_final_message(server: ServerThread) -> None:
    messages = [*HELLO, {'role': 'assistant', 'content': 'I am'}]
    body = {'messages': messages, 'max_tokens': 4, 'add_generation_prompt': False, 'continue_final_message': True}
    plain = httpx.post(f'{server.url}/v1/chat/completions', json=body | {'return_token_ids': True}).json()
    prompt = server.service.template.encode(messages, add_generation_prompt=False, continue_final_message=True)
    assert plain['prompt_token_ids'] == prompt
    echoed = httpx.post(f'{server.url}/v1/chat/completions', json=body | {'echo': True}).json()
    assert echoed['choices'][0]['message']['content'] == 'I am' + plain['choices'][0]['message']['content']
    with httpx.stream(
        'POST', f'{server.url}/v1/chat/completions', json=body | {'echo': True, 'stream': True}
    ) as answer:
        text = ''.join(c['choices'][0]['delta'].get('content', '') for c in sse(answer.iter_lines()))
    assert text == echoed['choices'][0]['message']['content']


def test_raw_stream_shape(server: ServerThread) -> None:
    body = {'messages': HELLO, 'max_tokens': 3, 'stream': True, 'stream_options': {'continuous_usage_stats': True}}
    with httpx.stream('POST', f'{server.url}/v1/chat/completions', json=body) as answer:
        assert answer.headers['content-type'].startswith('text/event-stream')
        chunks = list(sse(answer.iter_lines()))
    assert chunks[0]['choices'][0]['delta'] == {'role': 'assistant', 'content': ''}
    assert {chunk['object'] for chunk in chunks} == {'chat.completion.chunk'}
    assert len({chunk['id'] for chunk in chunks}) == 1
    assert chunks[-1]['usage']['completion_tokens'] == 3


def test_truncated_prompts(server: ServerThread) -> None:
    body = {'messages': [{'role': 'user', 'content': 'x' * 2000}], 'max_tokens': 2, 'return_token_ids': True}
    full = httpx.post(f'{server.url}/tokenize', json={'messages': body['messages']}).json()['tokens']
    cases = {(-1, 'left'): full[-510:], (7, 'left'): full[-7:], (7, 'right'): full[:7]}
    for (keep, side), expected in cases.items():
        answer = httpx.post(
            f'{server.url}/v1/chat/completions', json=body | {'truncate_prompt_tokens': keep, 'truncation_side': side}
        )
        assert answer.json()['prompt_token_ids'] == expected
