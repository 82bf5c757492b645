import asyncio

import httpx
import openai
import pytest

from tests.served import ServerThread


def test_prompt_spellings_agree(client: openai.OpenAI, server: ServerThread) -> None:
    tokenizer = server.service.engine.tokenizer
    texts = ['Hello there!', '你是谁？']
    ids = [tokenizer(text)['input_ids'] for text in texts]

    def ask(prompt) -> list[str]:
        answer = client.completions.create(model='tiny-model', prompt=prompt, max_tokens=8)
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.text for choice in answer.choices]

    alone = [ask(texts[0])[0], ask(texts[1])[0]]
    assert alone[0] != alone[1]
    assert ask(ids[0]) == alone[:1]
    assert ask(texts) == alone
    assert ask(ids) == alone
    assert ask([ids[0], texts[1]]) == alone


def test_default_length_and_usage(client: openai.OpenAI) -> None:
    answer = client.completions.create(model='tiny-model', prompt=['ab', 'abc'], n=2, extra_body={'ignore_eos': True})
    assert len(answer.choices) == 4
    assert answer.usage.completion_tokens == 64
    assert answer.usage.prompt_tokens == 5


@pytest.mark.parametrize('options', [{}, {'n': 2, 'seed': 5}, {'logprobs': 2}, {'echo': True}])
def test_streamed_equals_whole(client: openai.OpenAI, options: dict) -> None:
    request = {'model': 'tiny-model', 'prompt': ['Hello', '12345'], 'max_tokens': 12, 'temperature': 0.9, 'seed': 1}
    whole = client.completions.create(**request | options)
    texts, finishes, tokens = {}, {}, {}
    for chunk in client.completions.create(**request | options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, '') + choice.text
            finishes[choice.index] = choice.finish_reason
            tokens.setdefault(choice.index, []).extend(choice.logprobs.tokens if choice.logprobs else [])
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        assert finishes[choice.index] == choice.finish_reason
        assert tokens[choice.index] == (choice.logprobs.tokens if choice.logprobs else [])


def test_echo(client: openai.OpenAI, server: ServerThread) -> None:
    plain = client.completions.create(model='tiny-model', prompt='Hello', max_tokens=4).choices[0].text
    ids = server.service.engine.tokenizer('Hello')['input_ids']
    for prompt in ('Hello', ids):
        echoed = client.completions.create(model='tiny-model', prompt=prompt, max_tokens=4, echo=True)
        assert echoed.choices[0].text == 'Hello' + plain
        assert echoed.usage.completion_tokens == 4


def test_logprobs_lists(client: openai.OpenAI) -> None:
    answer = client.completions.create(model='tiny-model', prompt='Hello', max_tokens=5, logprobs=3, temperature=0)
    lists = answer.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == 5
    assert lists.text_offset[0] == 0 and lists.text_offset == sorted(lists.text_offset)
    for token, logprob, top in zip(lists.tokens, lists.token_logprobs, lists.top_logprobs, strict=True):
        assert max(top.values()) == logprob == top[token]
    named = client.completions.create(
        model='tiny-model', prompt='Hello', max_tokens=2, logprobs=0, extra_body={'return_tokens_as_token_ids': True}
    )
    assert all(token.startswith('token_id:') for token in named.choices[0].logprobs.tokens)


def test_tokenize_and_back(server: ServerThread) -> None:
    given = httpx.post(f'{server.url}/tokenize', json={'prompt': '你好 there', 'return_token_strs': True}).json()
    assert given['count'] == len(given['tokens']) == len(given['token_strs'])
    assert given['max_model_len'] == 512
    back = httpx.post(f'{server.url}/detokenize', json={'tokens': given['tokens']}).json()
    assert back == {'prompt': '你好 there'}


async def test_long_and_short_prompts_are_tokenized_side_by_side(server: ServerThread) -> None:
    texts = ['你好 ' * 12_000, 'short', 'long ' * 9_000] * 6

    async def count(client: httpx.AsyncClient, text: str) -> int:
        return (await client.post(f'{server.url}/tokenize', json={'prompt': text})).json()['count']

    async with httpx.AsyncClient(timeout=60) as client:
        counts = await asyncio.gather(*(count(client, text) for text in texts))
    tokenizer = server.service.engine.tokenizer
    assert counts == [len(tokenizer(text)['input_ids']) for text in texts[:3]] * 6
