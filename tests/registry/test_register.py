"""Rows of one's own: what a file may hold, and how what is wrong in it is said."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.args.custom import register_dataset_info, register_file
from swiftlite.args.infer import InferArgs
from swiftlite.data.rows import Drops, load_rows
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.hub import local_path
from swiftlite.registry.dataset_info import register_datasets
from swiftlite.registry.datasets import DATASETS
from swiftlite.registry.models import MODELS
from swiftlite.registry.register import EXAMPLE, register
from swiftlite.registry.resolve import get_model, get_template_spec
from swiftlite.registry.templates import TEMPLATES


def write(file, text):
    file.write_text(text, encoding='utf-8')
    return str(file)


def test_rows_of_a_file(tmp_path):
    (tmp_path / 'rows.jsonl').write_text('{"ask": "q", "reply": "r"}\n')
    args = InferArgs(
        model_type='my-7b-chat', template_type='my-chat', custom_register_path=write(tmp_path / 'my.yaml', EXAMPLE)
    )
    assert args.custom_register_path == str(tmp_path / 'my.yaml')
    assert get_model('My_7b-chat').template == 'my-chat'
    assert local_path('my-7b-chat') == '/models/my-7b-chat'
    spec = get_template_spec('my-chat')
    assert (spec.default_system, spec.user) == ('Be brief.', TEMPLATES['chatml'].user)
    (row,) = load_rows(['my-rows'], None, 0, Drops())
    assert [m['content'] for m in row.messages] == ['q', 'r']
    register_file(str(tmp_path / 'my.yaml'))  # once more is no clash
    file = write(tmp_path / 'changed.yaml', EXAMPLE.replace('Be brief.', 'Be long.'))
    with pytest.raises(UsageError, match="'my-chat' is taken"):
        register_file(file)


def test_json_and_a_whole_template(tmp_path):
    rows = {
        'templates': [
            {
                'name': 'angle',
                'user': ['<u>', '</u>'],
                'assistant_start': '<a>',
                'assistant_end': '</a>',
                'turn_sep': '\n',
                'system': ['<s>', '</s>'],
                'stop_words': ['<end>'],
                'tools': 'hermes',
                'trim': ['user'],
            }
        ],
        'models': [{'model_type': 'base', 'architecture': 'LlamaForCausalLM', 'hf_id': 'a/b', 'template': None}],
    }
    register_file(write(tmp_path / 'my.json', json.dumps(rows)))
    assert (TEMPLATES['angle'].trim, TEMPLATES['angle'].system) == (('user',), ('<s>', '</s>'))
    assert get_model('base').hf_id == 'a/b'


MODEL = {'model_type': 'm', 'architecture': 'LlamaForCausalLM', 'hf_id': 'a/b'}


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (None, 'must hold lists of models, templates, datasets'),
        ({'modles': []}, "did you mean 'models'"),
        ({'models': {}}, None),
        ({'models': 'x'}, "'models' of F must be a list"),
        ({'models': ['x']}, "'models' 1 must hold a row"),
        ({'models': [{'model_type': 'm'}]}, "no 'architecture'"),
        ({'models': [MODEL, {**MODEL, 'model_type': 3}]}, "'models' 2: 'model_type' must be text"),
        ({'models': [{**MODEL, 'base': 'yes'}]}, 'must be true or false'),
        ({'models': [{**MODEL, 'architecture': 'LamaForCausalLM'}]}, "did you mean 'LlamaForCausalLM'"),
        ({'models': [{**MODEL, 'template': 'chtml'}]}, "did you mean 'chatml'"),
        ({'models': [{**MODEL, 'hf_id': None}]}, 'where the weights are'),
        ({'models': [{**MODEL, 'model_type': 'qwen-7b'}]}, "'qwen-7b' is taken"),
        ({'templates': [{'name': 't'}]}, "no 'user'"),
        ({'templates': [{'extends': 'chatml'}]}, "no 'name'"),
        ({'templates': [{'name': 't', 'extends': 'chatml', 'user': ['a', 'b', 'c']}]}, 'a list of 2 texts'),
        ({'templates': [{'name': 't', 'extends': 'chatml', 'system_in_user': 'middle'}]}, 'must be first or last'),
        ({'templates': [{'name': 't', 'extends': 'chatml', 'tools': 'mine'}]}, "valid for 'tools'"),
        ({'datasets': [{'name': 'd'}]}, 'where the rows are'),
        ({'datasets': [{'name': 'd', 'path': 'x', 'columns': {'a': 'questoin'}}]}, "maps to 'questoin'"),
        ({'datasets': [{'name': 'd', 'path': 'x', 'columns': ['a']}]}, 'must map texts to texts'),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, content, said):
    if said is None:
        register(content, 'F', tmp_path)
        return
    with pytest.raises(UsageError) as error:
        register(content, 'F', tmp_path)
    assert said in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'text', 'said'),
    [
        ('my.py', 'register_model()', 'write the rows as YAML (models:'),
        ('my.json', '{"models": [}', 'line 1 is not valid JSON'),
        ('my.yaml', 'models: [', 'is no YAML'),
        ('my.yaml', '!!python/object/apply:os.system ["true"]', 'is no YAML'),
    ],
)
def test_files_that_are_not_read(tmp_path, name, text, said):
    with pytest.raises(UsageError) as error:
        InferArgs(model_type='tiny-chat', custom_register_path=write(tmp_path / name, text))
    assert said in str(error.value) and '\n' not in str(error.value)
    with pytest.raises(UsageError, match='cannot be read'):
        register_file(str(tmp_path / 'none.yaml'))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ['models', 'templates', 'datasets', 'name', 'model_type', 'architecture', 'path', 'columns', 'user']
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(json_values)
def test_any_content_is_read_or_refused(content):
    from pathlib import Path

    for use in (register, register_datasets):
        saved = [dict(table) for table in (MODELS, TEMPLATES, DATASETS)]
        try:
            use(content, 'F', Path())
        except UsageError as error:
            assert '\n' not in str(error)
        for table, rows in zip((MODELS, TEMPLATES, DATASETS), saved, strict=True):
            table.clear()
            table.update(rows)


LLAMA_FACTORY = {
    'mine': {'file_name': 'a.json'},
    'renamed': {'file_name': 'b.json', 'columns': {'prompt': 'ask', 'query': 'about', 'response': 'reply'}},
    'shared': {
        'file_name': 'c.json',
        'formatting': 'sharegpt',
        'columns': {'messages': 'talk', 'tools': 'can'},
        'tags': {
            'role_tag': 'who',
            'content_tag': 'what',
            'user_tag': 'Human',
            'assistant_tag': 'AI',
            'function_tag': 'do',
            'observation_tag': 'seen',
        },
    },
    'hub': {'hf_hub_url': 'someone/theirs', 'ms_hub_url': 'other/theirs', 'subset': 'v2', 'split': 'train'},
    'pretrain': {'file_name': 'd.json', 'columns': {'prompt': 'text'}},
}
TALK = [
    {'who': 'Human', 'what': 'add'},
    {'who': 'do', 'what': '{"name": "f", "arguments": {"a": 1}}'},
    {'who': 'seen', 'what': '2'},
    {'who': 'AI', 'what': 'two'},
]


def test_dataset_info_of_llama_factory(tmp_path):
    (tmp_path / 'dataset_info.json').write_text(json.dumps(LLAMA_FACTORY))
    (tmp_path / 'a.json').write_text(json.dumps([{'instruction': 'i', 'input': 'n', 'output': 'o'}]))
    (tmp_path / 'b.json').write_text(json.dumps([{'ask': 'i', 'about': 'n', 'reply': 'o', 'output': 'not this'}]))
    (tmp_path / 'c.json').write_text(json.dumps([{'talk': TALK, 'can': '[{"name": "f"}]'}]))
    (tmp_path / 'd.json').write_text(json.dumps([{'text': 'Once upon a time'}]))
    args = InferArgs(model_type='tiny-chat', custom_dataset_info=[str(tmp_path)], dataset=['mine'])
    assert args.custom_dataset_info == [str(tmp_path / 'dataset_info.json')]
    rows = load_rows(['mine', 'renamed', 'shared', 'pretrain'], None, 0, Drops())
    assert [[m['content'] for m in row.messages] for row in rows[:2]] == [['i\nn', 'o']] * 2
    assert [m['role'] for m in rows[2].messages] == ['user', 'assistant', 'tool', 'assistant']
    assert rows[2].messages[1]['tool_calls'][0]['function'] == {'name': 'f', 'arguments': {'a': 1}}
    assert rows[2].tools == [{'type': 'function', 'function': {'name': 'f'}}]
    assert rows[3].messages == [{'role': 'text', 'content': 'Once upon a time'}]
    assert (DATASETS['hub'].hf_id, DATASETS['hub'].ms_id, DATASETS['hub'].subset) == (
        'someone/theirs',
        'other/theirs',
        'v2',
    )


def test_dataset_info_of_ms_swift(tmp_path):
    (tmp_path / 'a.jsonl').write_text(json.dumps({'q': 'hi', 'a': 'ho'}) + '\n')
    (tmp_path / 'b.jsonl').write_text(json.dumps({'talk': [{'r': 'U', 'v': 'hi'}, {'r': 'B', 'v': 'ho'}]}) + '\n')
    turns = {'conversations_key': 'talk', 'user_role': 'U', 'assistant_role': 'B', 'from_key': 'r', 'value_key': 'v'}
    second = {
        'mine': {'dataset_path': 'a.jsonl', 'columns': {'q': 'query', 'a': 'response'}, 'tags': ['chat']},
        'turns': {'dataset_path': str(tmp_path / 'b.jsonl'), 'conversations': turns},
        'theirs': {'dataset_id': 'someone/theirs', 'hf_dataset_id': 'hf/theirs', 'subsets': ['zh', 'en']},
    }
    third = [
        {'ms_dataset_id': 'someone/more', 'subsets': ['default'], 'tags': ['zh']},
        {'dataset_name': 'also', 'dataset_path': 'a.jsonl', 'columns': {'q': 'query', 'a': 'response'}},
    ]
    register_dataset_info(write(tmp_path / 'two.json', json.dumps(second)))
    register_dataset_info(write(tmp_path / 'three.json', json.dumps(third)))
    for name in ('mine', 'turns', 'also'):
        assert [m['content'] for m in load_rows([name], None, 0, Drops())[0].messages] == ['hi', 'ho']
    assert (DATASETS['theirs'].ms_id, DATASETS['theirs'].hf_id, DATASETS['theirs'].subset) == (
        'someone/theirs',
        'hf/theirs',
        'zh',
    )
    assert DATASETS['someone/more'].ms_id == 'someone/more'


@pytest.mark.parametrize(
    ('entry', 'said'),
    [
        ({}, 'where its rows are'),
        ({'file_nam': 'a.json'}, "did you mean 'file_name'"),
        ({'file_name': 'a.json', 'ranking': True}, 'the only training is supervised'),
        ({'file_name': 'a.json', 'formatting': 'sharegtp'}, "valid for 'formatting'"),
        ({'file_name': 'a.json', 'columns': {'promt': 'x'}}, "did you mean 'prompt'"),
        ({'file_name': 'a.json', 'columns': {'images': 'x'}}, 'models read text'),
        ({'file_name': 'a.json', 'tags': {'user_tga': 'x'}}, "did you mean 'user_tag'"),
        ({'file_name': 'a.json', 'columns': 'x'}, 'must map texts to texts'),
        ({'script_url': 'x.py'}, 'no code is loaded'),
        (3, 'is no object'),
    ],
)
def test_entries_that_are_refused(tmp_path, entry, said):
    with pytest.raises(UsageError) as error:
        register_datasets({'mine': entry}, 'F', tmp_path)
    assert said in str(error.value) and "'mine'" in str(error.value) and '\n' not in str(error.value)


def test_missing_file_of_an_entry(tmp_path):
    register_datasets({'mine': {'file_name': 'none.json'}}, 'F', tmp_path)
    with pytest.raises(SwiftliteError, match=r'none\.json'):
        load_rows(['mine'], None, 0, Drops())
