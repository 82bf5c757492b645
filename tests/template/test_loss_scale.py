"""Which tokens carry the loss, by position: the text that is learned is cut out of the text as it is served."""

import pytest

from swiftlite.checkpoint import load_tokenizer
from swiftlite.errors import SwiftliteError
from swiftlite.hub import local_path
from swiftlite.template import IGNORE, get_template

CALL = {'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1}}}
TURNS = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'Hello there'},
    {'role': 'assistant', 'content': 'Hello there'},
    {'role': 'user', 'content': 'And 1?'},
    {'role': 'assistant', 'content': '', 'tool_calls': [CALL]},
    {'role': 'tool', 'content': '2'},
    {'role': 'assistant', 'content': 'Hello there'},
]
JINJA = r"""{%- if tools %}{% endif -%}
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\n' + m.content }}
{%- for call in m.tool_calls -%}
{{ '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""
EMPTY = '<think>\n\n</think>\n\n'


@pytest.fixture(scope='module')
def tokenizer():
    return load_tokenizer(local_path('tiny-chat'))


@pytest.fixture(params=['qwen2_5', 'jinja'])
def template(request, tokenizer):
    if request.param == 'qwen2_5':
        return get_template('qwen2_5', tokenizer)
    return get_template('jinja', tokenizer, chat_template=JINJA)


def spans(encoded, tokenizer):
    """The learned texts, each a run of labels that are ids."""
    runs, before = [], False
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (token, IGNORE)
        if label != IGNORE:
            runs[len(runs) - 1 if before else len(runs) :] = [[*(runs[-1] if before else []), token]]
        before = label != IGNORE
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


def test_default_and_last_round(template, tokenizer):
    """The same words in an earlier answer are not learned: positions decide, not tokens."""
    every = template.encode_training(TURNS)
    said = spans(every, tokenizer)
    assert len(said) == 3 and said[0] == said[2] == 'Hello there<|im_end|>' and 'add' in said[1]
    last = template.encode_training(TURNS, loss_scale='last_round')
    assert spans(last, tokenizer) == said[1:], 'the call and the answer behind the last question'
    first = next(i for i, label in enumerate(every.labels) if label != IGNORE)
    assert last.labels[first:] != every.labels[first:]
    held = template.encode_training([*TURNS[:-1], {**TURNS[-1], 'loss': False}], loss_scale='last_round')
    assert spans(held, tokenizer) == said[1:2]
    assert ''.join(tokenizer.decode(last.input_ids)) == template.render(TURNS, add_generation_prompt=False)


def test_last_round_of_one_question_is_the_default(template):
    assert template.encode_training(TURNS[:3], loss_scale='last_round') == template.encode_training(TURNS[:3])


def test_all(template):
    every, all_of_it = (template.encode_training(TURNS, loss_scale=name) for name in ('default', 'all'))
    assert all_of_it.input_ids == every.input_ids == all_of_it.labels
    with pytest.raises(SwiftliteError, match="'loss': false, but with --loss_scale all"):
        template.encode_training([*TURNS[:2], {**TURNS[2], 'loss': False}], loss_scale='all')


def test_empty_thoughts_are_not_learned(template, tokenizer):
    thought = [TURNS[1], {'role': 'assistant', 'content': f'{EMPTY}Yes.'}]
    assert spans(template.encode_training(thought), tokenizer) == [f'{EMPTY}Yes.<|im_end|>']
    encoded = template.encode_training(thought, loss_scale='ignore_empty_think')
    assert spans(encoded, tokenizer) == ['Yes.<|im_end|>']
    assert tokenizer.decode(encoded.input_ids).endswith(f'{EMPTY}Yes.<|im_end|>\n')
    real = [TURNS[1], {'role': 'assistant', 'content': '<think>\nhm\n</think>\n\nYes.'}]
    assert spans(template.encode_training(real, loss_scale='ignore_empty_think'), tokenizer)[0].startswith('<think>')
    both = [*thought, *thought]
    found = spans(template.encode_training(both, loss_scale='last_round+ignore_empty_think'), tokenizer)
    assert found == ['Yes.<|im_end|>']


def test_text_is_learned_whatever_the_choice(template):
    text = [{'role': 'text', 'content': 'Once upon a time'}]
    made = [template.encode_training(text, loss_scale=name) for name in ('default', 'last_round', 'all')]
    assert made[0].labels == made[0].input_ids and made[0] == made[1] == made[2]


def test_identity_tells_templates_apart(tokenizer):
    names = ('qwen2_5', 'qwen2_5-math', 'tiny-chat')
    made = [get_template(name, tokenizer) for name in names]
    made += [get_template('qwen2_5', tokenizer, default_system=None), get_template('tiny-chat', tokenizer)]
    made += [get_template('jinja', tokenizer, chat_template='{{ messages[0].content }}' + end) for end in ('', 'x')]
    assert len({template.identity for template in made}) == len(made) - 1
    assert made[2].identity == made[4].identity
