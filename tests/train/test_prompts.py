"""The prompt format of a run is in what it leaves behind: for swiftlite, and for other engines."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from swiftlite.args.infer import InferArgs
from swiftlite.checkpoint import load_tokenizer
from swiftlite.cli.parse import parse
from swiftlite.infer.setup import prepare
from swiftlite.template import get_template

OWN = '{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}' + (
    '{% if add_generation_prompt %}<assistant>{% endif %}'
)
TALKS = [[{'role': 'user', 'content': 'a'}]]
TALKS += [[*TALKS[0], {'role': 'assistant', 'content': 'b'}, *TALKS[0]]]


@pytest.mark.parametrize(
    'flags',
    [
        {'template_type': 'qwen2_5'},
        {'template_type': 'qwen3', 'enable_thinking': False},
        {'template_type': 'tiny-chat', 'system': 'Be brief.'},
        {'template_type': None, 'chat_template': OWN},
    ],
    ids=['template', 'thinking', 'system', 'jinja'],
)
def test_full_weights_carry_the_template_they_were_trained_with(sft, checkpoint, flags):
    last = Path(sft(sft_type='full', max_steps=1, **flags)['last_model_checkpoint'])
    tokenizer = AutoTokenizer.from_pretrained(last)
    options = {'enable_thinking': flags.get('enable_thinking'), 'chat_template': flags.get('chat_template')}
    if 'system' in flags:
        options['default_system'] = flags['system']
    template = get_template(flags.get('template_type'), load_tokenizer(checkpoint), **options)
    for messages in TALKS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == template.render(messages)


def test_a_template_of_ones_own_is_found_again(sft, tmp_path):
    """From the text that the checkpoint records: the file may be gone."""
    file = tmp_path / 'own.jinja'
    file.write_text(OWN)
    last = sft(max_steps=1, template_type=None, chat_template=str(file))['last_model_checkpoint']
    file.unlink()
    saved = json.loads(Path(last, 'sft_args.json').read_text())
    assert (saved['template_type'], saved['chat_template']) == ('jinja', OWN)
    setup = prepare(parse(InferArgs, ['--ckpt_dir', last], 'infer'))
    tokenizer = load_tokenizer(setup.config.model)
    assert setup.template(tokenizer).render(TALKS[0]) == '<user>a<|im_end|><assistant>'
    setup = prepare(parse(InferArgs, ['--ckpt_dir', last, '--template_type', 'tiny-chat'], 'infer'))
    assert setup.template(tokenizer).name == 'tiny-chat'


def test_plain_text_is_learned(sft, tmp_path, capsys):
    file = tmp_path / 'text.jsonl'
    file.write_text('{"text": "Tea is a drink made of leaves."}\n' * 4)
    sft(max_steps=1, dataset=[str(file)], dataset_test_ratio=0)
    assert '4 rows' in capsys.readouterr().out
