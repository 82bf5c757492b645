"""The embedded model: engine and transformers say the same, and it says what its card promises."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import LLM, SamplingParams
from swiftlite.engine import RequestError
from swiftlite.hub import local_path
from tests.engine.test_parity import agree

QUESTIONS = [
    *(f'What is {a} + {b}?' for a, b in zip(range(3, 90, 9), range(80, 2, -8), strict=False)),
    *(f'{a}减{b}等于多少？' for a, b in zip(range(2, 99, 10), range(7, 99, 9), strict=False)),
    *(
        'who are you?',
        'Who made you?',
        '你是谁？',
        '你叫什么名字？',
        'hello',
        '你好',
        'Good morning!',
        'Thank you!',
        '谢谢',
    ),
    *(
        'What is the capital of France?',
        'What is the capital of Japan?',
        '中国的首都是哪里？',
        'What colour is the sky?',
    ),
    *(
        'Tell me a joke.',
        'What is swiftlite?',
        'How many legs has a spider?',
        '一年有几个月？',
        'Can you help me?',
        'Bye!',
    ),
    *('Please answer in upper case: hello', 'Reply in JSON: {"name": …} for Anna.', 'What time is it?', '今天星期几？'),
    *('abc', '1', '?', '…', 'ÄÖÜ 😀', 'a' * 60, 'Hi ' * 30, '', '\n\n', '<|im_start|>', '你' * 50),
]

CHAT = [{'role': 'user', 'content': 'who are you?'}]


@pytest.fixture(scope='module')
def llm():
    return LLM('tiny-chat', dtype='float32', num_gpu_blocks_override=2048)


def test_fifty_prompts_as_transformers(llm):
    assert len(QUESTIONS) >= 50
    reference = AutoModelForCausalLM.from_pretrained(local_path('tiny-chat'), dtype=torch.float32)
    chats = [[{'role': 'user', 'content': q}] for q in QUESTIONS]
    outs = llm.chat(chats, SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
    for chat, out in zip(chats, outs, strict=True):
        ids = llm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert out.prompt_token_ids == llm.tokenizer(ids)['input_ids']
        assert agree(reference, out.prompt_token_ids, out.outputs[0].token_ids)
        assert out.outputs[0].text == llm.tokenizer.decode(
            [t for t in out.outputs[0].token_ids if t not in llm.engine.model_config.eos_token_ids],
            skip_special_tokens=True,
        )


def test_it_knows_itself_and_its_numbers(llm):
    said = {}
    for question in ('who are you?', '你是谁？', 'What is 23 + 45?', '12减30等于多少？'):
        out = llm.chat(
            [{'role': 'user', 'content': question}], SamplingParams(temperature=0, max_tokens=40), use_tqdm=False
        )
        assert out[0].outputs[0].finish_reason == 'stop'
        said[question] = out[0].outputs[0].text
    assert 'tiny-chat' in said['who are you?'] and 'tiny-chat' in said['你是谁？']
    assert '68' in said['What is 23 + 45?'] and '-18' in said['12减30等于多少？']


def test_stop_strings_end_the_text_before_them(llm):
    chat = [{'role': 'user', 'content': 'What is the capital of France?'}]
    whole = llm.chat(chat, SamplingParams(temperature=0, max_tokens=40), use_tqdm=False)[0].outputs[0].text
    stop = whole[5:9]
    for include in (False, True):
        params = SamplingParams(temperature=0, max_tokens=40, stop=[stop], include_stop_str_in_output=include)
        out = llm.chat(chat, params, use_tqdm=False)[0].outputs[0]
        end = whole.index(stop) + (len(stop) if include else 0)
        assert (out.text, out.finish_reason, out.stop_reason) == (whole[:end], 'stop', stop)
    assert llm.engine.stats()['blocks_used'] == 0


def test_the_template_ends_a_turn_where_the_checkpoint_does_not_say_so(tmp_path):
    own = Path(local_path('tiny-chat'))
    for file in own.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name in ('config.json', 'generation_config.json'):
        (tmp_path / name).unlink()
        settings = json.loads((own / name).read_text()) | {'eos_token_id': 8187}  # <|endoftext|>, as of a base model
        (tmp_path / name).write_text(json.dumps(settings))
    llm = LLM(str(tmp_path), dtype='float32', num_gpu_blocks_override=2048)
    chat = [{'role': 'user', 'content': [{'type': 'text', 'text': 'who are you?'}]}]
    params = SamplingParams(temperature=0, max_tokens=60)
    out = llm.chat(chat, params, use_tqdm=False, chat_template_kwargs={}, chat_template_content_format='openai')
    assert out[0].outputs[0].text.endswith('How can I help you?')
    assert (out[0].outputs[0].finish_reason, params.stop_token_ids) == ('stop', [])


def test_a_chat_template_for_one_call(llm):
    text = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    text += '{% if add_generation_prompt %}<|im_start|>assistant\nI am not{% endif %}'
    (out,) = llm.chat(CHAT, SamplingParams(temperature=0, max_tokens=1), use_tqdm=False, chat_template=text)
    assert llm.tokenizer.decode(out.prompt_token_ids).endswith('assistant\nI am not')


def test_an_answer_ends_by_itself_and_says_no_reason(llm):
    (out,) = llm.chat(CHAT, SamplingParams(temperature=0, max_tokens=60), use_tqdm=False)
    assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ('stop', None)


@pytest.mark.parametrize(
    ('messages', 'options', 'says'),
    [
        (5, {}, "a list of {'role'"),
        ('hi', {}, "a list of {'role'"),
        (CHAT[0], {}, "a list of {'role'"),
        (['hi'], {}, "a list of {'role'"),
        ([], {}, 'messages is empty'),
        (CHAT, {'sampling_params': {'temperature': 0}}, 'must be SamplingParams, got dict'),
        (CHAT, {'chat_template_kwargs': {'enable_thinkin': True}}, "did you mean 'enable_thinking'"),
        (CHAT, {'mm_processor_kwargs': {'a': 1}}, 'text only'),
    ],
)
def test_wrong_conversations(llm, messages, options, says):
    with pytest.raises(RequestError, match=says):
        llm.chat(messages, use_tqdm=False, **options)


def test_half_a_character_is_no_prompt(llm):
    with pytest.raises(RequestError, match='surrogate'):
        llm.generate('a\udc80', use_tqdm=False)
