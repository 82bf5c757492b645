"""Templates of further families: ids as upstream's, and training that continues what is served."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, detect, get_template
from swiftlite.template.writer import jinja
from tests.template.test_template import (
    ADVERSARIAL,
    TOOLS,
    assistant,
    call,
    check,
    result,
    system,
    text_turns,
    texts,
    tool_turns,
    upstream,
    user,
)

CHATML = ['qwen1half', 'yi', 'yi1_5', 'qwen3', 'qwen3_thinking', 'qwen3_nothinking']
LLAMA3 = ['llama3', 'llama3_1', 'llama3_2']
FOLDED = ['llama', 'mistral', 'mistral-v3', 'mistral-nemo']
QWEN3 = ['qwen3', 'qwen3_thinking', 'qwen3_nothinking']
NAMES = [*CHATML, *LLAMA3, *FOLDED]
thinking_texts = st.builds(
    '{}{}{}'.format,
    st.sampled_from(['', '<think>', '<think>\n']),
    texts,
    st.sampled_from(['', '</think>', '\n</think>\n\nx']),
)
answers = st.one_of(texts, thinking_texts)
thinking_turns = st.lists(
    st.one_of(
        st.builds(user, texts),
        st.builds(result, texts),
        st.builds(assistant, answers),
        st.builds(lambda text, thought: assistant(text, reasoning_content=thought), texts, texts),
        st.builds(lambda text: assistant(text, tool_calls=[call('add', {'a': 1})]), answers),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def alternating(draw):
    said = draw(st.lists(texts, min_size=1, max_size=5))
    turns = [(user, assistant)[i % 2](text) for i, text in enumerate(said)]
    return [*([system(draw(texts))] if draw(st.booleans()) else []), *turns]


@pytest.fixture(scope='module')
def templates(make_tokenizer):
    return {name: get_template(name, make_tokenizer(name)) for name in NAMES}


@pytest.mark.parametrize('name', [*CHATML, *LLAMA3])
@settings(max_examples=50, deadline=None)
@given(messages=text_turns)
def test_text_conversations_equal_upstream(templates, name, messages):
    if name == 'yi1_5' and any(m['role'] == 'system' for m in messages[1:]):
        with pytest.raises(SwiftliteError, match='at the start only'):  # upstream leaves such a turn out
            templates[name].encode(messages)
    else:
        check(templates[name], messages)


@pytest.mark.parametrize('name', FOLDED)
@settings(max_examples=50, deadline=None)
@given(messages=alternating())
def test_alternating_conversations_equal_upstream(templates, name, messages):
    check(templates[name], messages)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('text', ADVERSARIAL)
def test_adversarial_content_equals_upstream(templates, name, text):
    check(templates[name], [system(text), user(text), assistant(text), user(text)])


@pytest.mark.parametrize('name', QWEN3)
@settings(max_examples=50, deadline=None)
@given(messages=tool_turns, tools=st.sampled_from([None, [], TOOLS]))
def test_tool_conversations_equal_upstream(templates, name, messages, tools):
    check(templates[name], messages, tools)


@pytest.mark.parametrize('name', ['qwen3', 'qwen3_thinking'])
@settings(max_examples=100, deadline=None)
@given(messages=thinking_turns, tools=st.sampled_from([None, TOOLS]))
def test_thinking_equals_upstream(templates, name, messages, tools):
    check(templates[name], messages, tools)


@pytest.mark.parametrize('thinks', [None, True, False])
def test_thinking_is_switched_in_the_prompt(make_tokenizer, thinks):
    tokenizer = make_tokenizer('qwen3')
    template = get_template('qwen3', tokenizer, enable_thinking=thinks)
    messages = [user('a'), assistant('<think>\nb\n</think>\n\nc'), user('d')]
    switch = {} if thinks is None else {'enable_thinking': thinks}
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switch)
    assert template.render(messages) == expected
    assert expected.endswith('assistant\n<think>\n\n</think>\n\n') == (thinks is False)
    assert '\nb\n' not in expected, 'what was thought about an earlier question is forgotten'


def test_golden_thinking(templates):
    messages = [user('q'), assistant('r', reasoning_content='t')]
    assert templates['qwen3'].render(messages, add_generation_prompt=False) == (
        '<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</think>\n\nr<|im_end|>\n'
    )
    assert templates['qwen3_thinking'].render([user('q')]).endswith('<|im_start|>assistant\n<think>\n')
    assert templates['qwen3_nothinking'].render([user('q')]).endswith('<|im_start|>assistant\n')


@pytest.mark.parametrize(
    ('name', 'thinks', 'prompt_end', 'learned'),
    [
        ('qwen3', None, '', '<think>\n\n</think>\n\nr<|im_end|>'),
        ('qwen3', True, '', '<think>\n\n</think>\n\nr<|im_end|>'),
        ('qwen3', False, '<think>\n\n</think>\n\n', 'r<|im_end|>'),
        ('qwen3_thinking', None, '<think>\n', '\n</think>\n\nr<|im_end|>'),
        ('qwen3_nothinking', None, '', 'r<|im_end|>'),
    ],
)
def test_what_the_prompt_holds_is_not_learned(make_tokenizer, name, thinks, prompt_end, learned):
    template = get_template(name, make_tokenizer(name), enable_thinking=thinks)
    encoded = template.encode_training([user('q'), assistant('r')])
    prompt = template.encode([user('q')])
    assert template.render([user('q')]).endswith('<|im_start|>assistant\n' + prompt_end)
    assert encoded.input_ids[: len(prompt)] == prompt and set(encoded.labels[: len(prompt)]) == {IGNORE}
    assert template.tokenizer.decode([x for x in encoded.labels if x != IGNORE]) == learned


@pytest.mark.parametrize(
    ('name', 'thinks', 'said'), [('qwen3_thinking', False, 'always'), ('yi', True, 'never'), ('llama3', True, 'never')]
)
def test_thinking_that_cannot_be_switched(make_tokenizer, name, thinks, said):
    with pytest.raises(SwiftliteError, match=f"'{name}' {said} thinks"):
        get_template(name, make_tokenizer(name), enable_thinking=thinks)
    get_template(name, make_tokenizer(name), enable_thinking=not thinks)


def test_golden_llama(templates):
    header = '<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>'
    prompt = '<|start_header_id|>assistant<|end_header_id|>\n\n'
    knowledge = 'Cutting Knowledge Date: December 2023\nToday Date: {}\n\n'
    today = datetime.now().strftime('%d %b %Y')
    asked = header.format('user', 'hi') + prompt
    assert templates['llama3'].render([user(' hi\n')]) == '<|begin_of_text|>' + asked
    for name, date in (('llama3_1', '26 Jul 2024'), ('llama3_2', today)):
        start = '<|begin_of_text|>' + header.format('system', knowledge.format(date) + '{}')
        assert templates[name].render([user('hi')]) == start.format('') + asked
        assert templates[name].render([system('s'), user('hi')]) == start.format('s') + asked
    assert templates['llama'].render([system('s'), user('a'), assistant('b'), user('c')]) == (
        '<s>[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]'
    )
    assert templates['mistral'].render([system('s'), user('a'), assistant('b'), user('c')]) == (
        '<s> [INST] s\n\na [/INST] b</s> [INST] c [/INST]'
    )


@pytest.mark.parametrize('name', FOLDED)
@pytest.mark.parametrize(
    'messages', [[system('s')], [assistant('a')], [user('a'), user('b')], [user('a'), system('s')]], ids=len
)
def test_turns_alternate(templates, name, messages):
    with pytest.raises(SwiftliteError, match='in turn'):
        templates[name].encode(messages)


@pytest.mark.parametrize('name', ['llama3', 'llama', 'mistral', 'yi', 'yi1_5'])
def test_template_without_tools_refuses_them(templates, name):
    with pytest.raises(SwiftliteError, match='no tools'):
        templates[name].encode([user('a')], tools=TOOLS)


@pytest.mark.parametrize('name', [*LLAMA3, 'qwen1half', 'qwen3_nothinking'])
@settings(max_examples=40, deadline=None)
@given(messages=text_turns, answer=texts)
def test_training_prompt_is_the_serving_prompt(templates, name, messages, answer):
    check_training(templates[name], messages, answer)


@pytest.fixture(scope='module', params=[True, False], ids=['everywhere', 'first'])
def with_spaces(request, make_tokenizer):
    """Templates over SentencePiece tokenizers: a space before a text, in some after special tokens, too."""
    return {
        name: get_template(name, make_tokenizer(name, everywhere=request.param))
        for name in ('llama', 'mistral', 'mistral-v3', 'yi')
    }


@pytest.mark.parametrize('name', FOLDED[:3])
@settings(max_examples=40, deadline=None)
@given(messages=alternating(), answer=texts)
def test_training_where_a_part_of_a_text_gets_a_space(with_spaces, name, messages, answer):
    messages = messages if messages[-1]['role'] == 'user' else messages[:-1]
    same = check_training(with_spaces[name], messages, answer)
    if name != 'mistral-v3' or messages[0]['role'] == 'user':  # it leaves out the system text once it is answered
        assert same, 'a reply starts with a space, which starts a token'


@settings(max_examples=40, deadline=None)
@given(messages=text_turns, answer=texts)
def test_training_of_yi(with_spaces, messages, answer):
    check_training(with_spaces['yi'], messages, answer)


def test_several_learned_turns_get_no_spaces_of_their_own(with_spaces):
    messages = [system('s'), user('a'), assistant('Hello there'), user('b'), assistant('I am fine')]
    for name, template in with_spaces.items():
        if name == 'mistral-v3':
            continue  # see below
        encoded = template.encode_training(messages)
        whole = template.encode(messages, add_generation_prompt=False)
        assert template.tokenizer.decode(encoded.input_ids) == template.tokenizer.decode(whole)
        assert encoded.input_ids == whole or name == 'yi', 'here a token holds the newline and the first letter'


def test_the_system_text_is_trained_where_it_is_served(with_spaces):
    """Mistral v0.3 writes it into the question that is answered; a finished conversation shows none."""
    template = with_spaces['mistral-v3']
    messages = [system('Be kind'), user('a'), assistant('b'), user('c'), assistant('d')]
    assert 'Be kind' not in template.render(messages, add_generation_prompt=False)
    decoded = template.tokenizer.decode(template.encode_training(messages).input_ids)
    assert decoded.index('Be kind') > decoded.index('[INST] a')
    prompt = template.encode(messages[:-1])
    last = template.encode_training([*({**m, 'loss': False} for m in messages[:-1]), messages[-1]])
    assert last.input_ids[: len(prompt)] == prompt


def check_training(template, messages, answer):
    """Prompt as served, then labels on the rest up to the end token. Where the whole text's ids start with the prompt's
    (no token reaches over the boundary) they are what is trained on."""
    prompt = template.encode(messages)
    encoded = template.encode_training([*({**m, 'loss': False} for m in messages), assistant(answer)])
    assert encoded.input_ids[: len(prompt)] == prompt
    learned = [label for label in encoded.labels if label != IGNORE]
    end = len(prompt) + len(learned)
    assert encoded.labels == [IGNORE] * len(prompt) + learned + [IGNORE] * (len(encoded.labels) - end)
    assert encoded.input_ids[len(prompt) : end] == learned
    assert learned[-1] == template.stop_token_ids[0]
    whole = template.encode([*messages, assistant(answer)], add_generation_prompt=False)
    assert whole[: len(prompt)] != prompt or encoded.input_ids == whole
    return whole[: len(prompt)] == prompt


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_template_written_for_other_engines_renders_alike(templates, name, data):
    template = templates[name]
    turns = alternating() if name in FOLDED else thinking_turns if name in QWEN3 else text_turns
    messages = data.draw(turns)
    if name == 'yi1_5':
        messages = [m for i, m in enumerate(messages) if m['role'] != 'system' or i == 0]
    asked = next((m['role'] for m in messages if m['role'] != 'system'), None) == 'user'
    for tools in [None, TOOLS] if template.tool_format and (asked or name in QWEN3) else [None]:
        if name.startswith('llama') and tools and any(m['role'] != 'user' for m in messages[:1]):
            continue
        for prompt in (True, False):
            found = template.tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=jinja(template), tokenize=False, add_generation_prompt=prompt
            )
            assert found == template.render(messages, tools, prompt)


@pytest.mark.parametrize('name', NAMES)
def test_template_is_found_from_the_tokenizer(make_tokenizer, name):
    tokenizer = make_tokenizer(name)
    found = detect(tokenizer)
    same = {'yi': 'chatml', 'qwen3_nothinking': 'tiny-chat'}  # what these write is the same
    assert found == same.get(name, name)
    messages = [system('s'), user('a'), assistant('b'), user('c')]
    assert get_template(found, tokenizer).render(messages) == upstream(tokenizer, messages)


def test_stops(templates):
    for name, stops in (('llama3', ['<|eot_id|>', '<|end_of_text|>']), ('llama', ['</s>']), ('mistral', ['</s>'])):
        template = templates[name]
        assert template.stop_token_ids == tuple(template.tokenizer.convert_tokens_to_ids(stops))
        assert template.stop_strings == ()


def test_tokenizer_without_a_start_token(make_tokenizer):
    tokenizer = make_tokenizer('llama')
    tokenizer.bos_token = None
    for name in FOLDED:
        with pytest.raises(SwiftliteError, match='start-of-sequence'):
            get_template(name, tokenizer)
