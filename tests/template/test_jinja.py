"""Chat templates in Jinja, a checkpoint's own or given ones, behind the interface of all templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.args.infer import InferArgs
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.template import IGNORE, from_jinja, get_template
from swiftlite.template.writer import chat_template
from tests.template.conftest import UPSTREAM
from tests.template.test_template import TOOLS, assistant, call, result, system, text_turns, texts, upstream, user

NAMES = ['qwen2_5', 'qwen3', 'llama3_1', 'mistral-nemo', 'llama', 'yi1_5']
TALK = [system('s'), user('a'), assistant('b c'), user('d'), assistant('e')]


@pytest.fixture(scope='module')
def pairs(make_tokenizer):
    """Templates by name, and the same from the Jinja text that their checkpoints ship."""
    made = {name: make_tokenizer(name) for name in NAMES}
    return {name: (get_template(name, t), from_jinja(UPSTREAM[name], t)) for name, t in made.items()}


@pytest.mark.parametrize('name', NAMES)
def test_same_as_the_template_by_name(pairs, name):
    by_name, from_text = pairs[name]
    assert from_text.name == 'jinja'
    assert from_text.stop_token_ids[0] == by_name.stop_token_ids[0]
    assert from_text.spec.tools == by_name.spec.tools
    for messages in (TALK, TALK[1:]):
        for prompt in (True, False):
            assert from_text.encode(messages, add_generation_prompt=prompt) == by_name.encode(
                messages, add_generation_prompt=prompt
            )
        open_end = {'add_generation_prompt': False, 'continue_final_message': True}
        assert from_text.encode(messages, **open_end) == by_name.encode(messages, **open_end)
    if name != 'mistral-nemo':  # whose finished conversations show no system text
        assert from_text.encode_training(TALK) == by_name.encode_training(TALK)
    assert from_text.encode_training(TALK[1:]) == by_name.encode_training(TALK[1:])


@pytest.mark.parametrize('name', ['qwen2_5', 'llama3_1', 'mistral-nemo'])
def test_tools(pairs, name):
    by_name, from_text = pairs[name]
    made = [{**call('add', '{"a": 1}'), 'id': 'abcdef012'}]
    messages = [user('a'), assistant('', tool_calls=made), {**result('1'), 'tool_call_id': 'abcdef012'}]
    assert from_text.encode(messages, tools=TOOLS) == by_name.encode(messages, tools=TOOLS)
    written = by_name.tool_format.calls(made)
    assert from_text.parse_tool_calls(written) == by_name.parse_tool_calls(written)
    messages.append(assistant('done'))
    assert from_text.encode_training(messages, tools=TOOLS) == by_name.encode_training(messages, tools=TOOLS)


@settings(max_examples=60, deadline=None)
@given(messages=text_turns, answer=texts)
def test_training_starts_where_serving_ends(pairs, messages, answer):
    template = pairs['qwen2_5'][1]
    messages = [{**m, 'loss': False} for m in messages]
    prompt = template.encode(messages)
    encoded = template.encode_training([*messages, assistant(answer)])
    assert encoded.input_ids[: len(prompt)] == prompt
    learned = [label for label in encoded.labels if label != IGNORE]
    assert learned == template.tokenizer.encode(answer + '<|im_end|>', add_special_tokens=False)


def test_thinking_is_switched_a_request(pairs):
    for template in pairs['qwen3']:
        lead = '<think>\n\n</think>\n\n'
        assert template.render([user('a')], enable_thinking=False).endswith(lead)
        assert not template.render([user('a')], enable_thinking=True).endswith(lead)
        prompt = template.encode([user('a')], enable_thinking=False)
        assert template.tokenizer.decode(prompt).endswith(lead)
    for template in pairs['qwen2_5']:
        with pytest.raises(SwiftliteError, match='thinking cannot be switched'):
            template.encode([user('a')], enable_thinking=True)
        assert template.encode([user('a')], enable_thinking=False) == template.encode([user('a')])
    off = from_jinja(UPSTREAM['qwen3'], pairs['qwen3'][0].tokenizer, enable_thinking=False)
    assert off.render([user('a')]).endswith(lead)
    assert not off.render([user('a')], enable_thinking=True).endswith(lead)


def test_system_prompt_of_ones_own(pairs):
    tokenizer = pairs['qwen2_5'][0].tokenizer
    template = from_jinja(None, tokenizer, default_system='Be brief.')
    assert template.render([user('x')]) == upstream(tokenizer, [system('Be brief.'), user('x')])
    assert template.render(TALK) == upstream(tokenizer, TALK)
    with pytest.raises(SwiftliteError, match='empty --system'):
        from_jinja(None, tokenizer, default_system=None)


def test_turns_that_are_rewritten(make_tokenizer):
    """Where a template changes what the model saw, the row cannot be learned as it is served; an answer still can."""
    tokenizer = make_tokenizer('qwen')
    counted = '{{ messages | length }}{% for m in messages %}[{{ m.content }}<|im_end|>]{% endfor %}'
    template = from_jinja(counted, tokenizer)
    with pytest.raises(SwiftliteError, match='message 2 anew'):
        template.encode_training([user('a'), assistant('b'), user('c'), assistant('d')])
    shown = "m.role == 'user' or m == messages[-1]"
    forgets = '{% for m in messages if ' + shown + ' %}[{{ m.content }}<|im_end|>{% endfor %}'
    template = from_jinja(forgets, tokenizer)
    encoded = template.encode_training([user('a'), assistant('b', loss=False), user('c'), assistant('d')])
    assert tokenizer.decode([x for x in encoded.labels if x != IGNORE]) == '[d<|im_end|>'


def test_tools_need_a_known_form(make_tokenizer):
    tokenizer = make_tokenizer('qwen')
    for text in ('{% for m in messages %}{{ m.content }}{% endfor %}', '{{ tools }}{{ messages[0].content }}'):
        with pytest.raises(SwiftliteError, match='no tools'):
            from_jinja(text, tokenizer).encode([user('a')], tools=TOOLS)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('a\n{% if %}', 'no Jinja, line 2'),
        ('{{ messages', 'no Jinja, line 1'),
        ("{{ raise_exception('roles must\nalternate') }}", 'refuses these messages: roles must alternate'),
        ('{{ messages[0].content + 1 }}', 'fails on these messages'),
        ('{{ 1 / 0 }}', 'fails on these messages'),
        ("{{ messages.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}", 'these messages'),
        ('{% for i in range(10 ** 9) %}{% endfor %}', 'these messages'),
    ],
)
def test_errors_of_a_template_are_one_sentence(make_tokenizer, text, said):
    with pytest.raises(SwiftliteError, match=said) as error:
        from_jinja(text, make_tokenizer('qwen')).encode([user('a')])
    assert '\n' not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(text=st.text('{}%# abmsg.[]()\'"\n|+0', max_size=30))
def test_any_text_renders_or_is_refused(pairs, text):
    tokenizer = pairs['qwen2_5'][0].tokenizer
    try:
        template = from_jinja(text or 'x', tokenizer)
        assert template.encode([user('a')]) == tokenizer.encode(template.render([user('a')]), add_special_tokens=False)
    except SwiftliteError as error:
        assert '\n' not in str(error)


def test_flag_takes_text_or_a_file(tmp_path):
    file = tmp_path / 'chat.jinja'
    file.write_text(UPSTREAM['qwen'], encoding='utf-8')
    for typed in (str(file), UPSTREAM['qwen']):
        args = InferArgs(model_type='tiny-chat', chat_template=typed)
        assert args.template_options()['chat_template'] == UPSTREAM['qwen']
    (tmp_path / 'bad.jinja').write_bytes(b'\xff\xfe')
    for typed, said in ((str(tmp_path / 'chat.jinjer'), 'no file'), (str(tmp_path / 'bad.jinja'), 'UTF-8')):
        with pytest.raises(UsageError, match=said):
            InferArgs(model_type='tiny-chat', chat_template=typed)
    with pytest.raises(UsageError, match='in place of --template_type'):
        InferArgs(model_type='tiny-chat', chat_template=str(file), template_type='qwen')
    assert InferArgs(model_type='tiny-chat', template_type='Jinja').template_type == 'jinja'
    assert InferArgs(model_type='tiny-chat', template_type='AUTO').template_type is None


def test_what_other_engines_read(make_tokenizer):
    """The tokenizer's own text is kept, with new defaults before it where there are any."""
    tokenizer = make_tokenizer('qwen3')
    assert chat_template(from_jinja(None, tokenizer)) is None
    assert chat_template(from_jinja(UPSTREAM['qwen'], tokenizer)) == UPSTREAM['qwen']
    for made in (
        from_jinja(None, tokenizer, default_system='Be "kind".', enable_thinking=False),
        get_template('qwen3', tokenizer, default_system='Be "kind".', enable_thinking=False),
    ):
        text = chat_template(made)
        assert text.endswith(UPSTREAM['qwen3'])
        for messages in (TALK[:-1], TALK[1:-1]):
            found = tokenizer.apply_chat_template(
                messages, chat_template=text, tokenize=False, add_generation_prompt=True
            )
            assert found == made.render(messages)
