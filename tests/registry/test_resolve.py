"""From what a user types to a model source."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.hub import local_path
from swiftlite.registry.families import FAMILIES
from swiftlite.registry.models import MODELS
from swiftlite.registry.resolve import (
    complete,
    find_model,
    get_dataset,
    get_family,
    get_model,
    get_template_spec,
    match_type,
    read_checkpoint_args,
    resolve_model,
)
from swiftlite.registry.templates import TEMPLATES


def write_config(folder: Path, architecture: str = 'Qwen2ForCausalLM') -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps({'architectures': [architecture]}))
    return str(folder)


def write_adapter(folder: Path, base: str = '', **saved: object) -> str:
    folder.mkdir(parents=True)
    (folder / 'adapter_config.json').write_text(json.dumps({'base_model_name_or_path': base}))
    if saved:
        (folder / 'sft_args.json').write_text(json.dumps(saved))
    return str(folder)


@pytest.mark.parametrize('info', MODELS.values(), ids=lambda info: info.model_type)
def test_every_row_points_to_rows_that_exist(info):
    assert info.architecture in FAMILIES
    assert info.template is None or info.template in TEMPLATES
    assert (info.template == 'default-generation') == info.base
    assert bool(info.asset) != bool(info.ms_id and info.hf_id)


@pytest.mark.parametrize(
    ('model_type', 'hf_id'),
    [
        ('qwen1half-0_5b-chat', 'Qwen/Qwen1.5-0.5B-Chat'),
        ('qwen3-0_6b', 'Qwen/Qwen3-0.6B'),
        ('qwen3-4b-thinking-2507', 'Qwen/Qwen3-4B-Thinking-2507'),
        ('llama2-7b-chat', 'meta-llama/Llama-2-7b-chat-hf'),
        ('llama3-8b-instruct', 'meta-llama/Meta-Llama-3-8B-Instruct'),
        ('llama3_3-70b-instruct', 'meta-llama/Llama-3.3-70B-Instruct'),
        ('mistral-7b-instruct-v2', 'mistralai/Mistral-7B-Instruct-v0.2'),
        ('yi-34b-chat', '01-ai/Yi-34B-Chat'),
        ('qwen-7b-chat', 'Qwen/Qwen-7B-Chat'),
        ('qwen-1_8b', 'Qwen/Qwen-1_8B'),
        ('qwen2-72b-instruct', 'Qwen/Qwen2-72B-Instruct'),
        ('qwen2_5-0_5b', 'Qwen/Qwen2.5-0.5B'),
        ('qwen2_5-coder-1_5b-instruct', 'Qwen/Qwen2.5-Coder-1.5B-Instruct'),
    ],
)
def test_published_ids(model_type, hf_id):
    assert get_model(model_type).hf_id == hf_id
    assert find_model(hf_id) == get_model(model_type)


@pytest.mark.parametrize(
    ('ms_id', 'model_type'),
    [
        ('modelscope/Llama-2-13b-chat-ms', 'llama2-13b-chat'),
        ('LLM-Research/Meta-Llama-3.1-8B', 'llama3_1-8b'),
        ('01ai/Yi-1.5-9B', 'yi-1_5-9b'),
        ('AI-ModelScope/Mistral-7B-v0.1', 'mistral-7b'),
    ],
)
def test_ids_that_differ_between_the_hubs(ms_id, model_type):
    info = get_model(model_type)
    assert (info.ms_id, find_model(ms_id), find_model(info.hf_id)) == (ms_id, info, info) and info.hf_id != ms_id


def test_ids_are_of_one_model():
    for ids in ([info.hf_id for info in MODELS.values()], [info.ms_id for info in MODELS.values()]):
        assert len({x for x in ids if x}) == sum(x is not None for x in ids)


def test_type_in_any_spelling():
    assert get_model('Qwen2.5-7B_Instruct') is MODELS['qwen2_5-7b-instruct']


@pytest.mark.parametrize(
    ('look', 'name', 'hint'),
    [
        (get_model, 'qwen-7b-chta', "'qwen-7b-chat'"),
        (get_model, 'llama3_1-8b-instrcut', "'llama3_1-8b-instruct'"),
        (get_model, 'qwen3-8b-bse', "'qwen3-8b-base'"),
        (get_template_spec, 'lama3', "'llama3'"),
        (get_family, 'LlamaForCausalLMM', "'LlamaForCausalLM'"),
        (get_model, 'xyz', "'swiftlite models'"),
        (get_template_spec, 'qwen25', "'qwen2_5'"),
        (get_dataset, 'self-cognitoin', "'self-cognition'"),
        (get_family, 'Qwen2ForCausalLLM', "'Qwen2ForCausalLM'"),
    ],
)
def test_unknown_name_gives_one_sentence_with_the_nearest(look, name, hint):
    with pytest.raises(SwiftliteError) as error:
        look(name)
    assert repr(name) in str(error.value) and hint in str(error.value) and '\n' not in str(error.value)


def test_model_type_is_accepted_where_a_path_is():
    assert resolve_model(model_id_or_path='tiny-chat') == resolve_model(model_type='tiny-chat')
    assert resolve_model(model_id_or_path='qwen/qwen2.5-7b-instruct').model_type == 'qwen2_5-7b-instruct'


def test_local_folder_with_a_type():
    source = resolve_model(model_type='qwen2_5-7b-instruct', model_id_or_path='/weights')
    assert (source.model_type, source.model_id_or_path, source.template) == (
        'qwen2_5-7b-instruct',
        '/weights',
        'qwen2_5',
    )


@pytest.mark.parametrize(
    'folder',
    [
        'Qwen2.5-7B-Instruct',
        'Qwen2___5-7B-Instruct',
        'models--Qwen--Qwen2.5-7B-Instruct/snapshots/0a1b',
        'qwen2_5-7b-instruct/v0',
    ],
)
def test_type_of_a_local_folder(tmp_path, folder):
    source = resolve_model(model_id_or_path=write_config(tmp_path / folder))
    assert (source.model_type, source.template) == ('qwen2_5-7b-instruct', 'qwen2_5')


def test_base_and_chat_are_told_apart(tmp_path):
    assert match_type({'architectures': ['Qwen2ForCausalLM']}, '/x/Qwen2.5-7B').base
    assert match_type({'architectures': ['Qwen2ForCausalLM']}, '/x/Qwen-7B-Chat') is None, 'another architecture'
    assert match_type({'architectures': ['QWenLMHeadModel']}, '/x/Qwen-7B-Chat').model_type == 'qwen-7b-chat'


@pytest.mark.parametrize(
    ('architecture', 'folder', 'model_type', 'template'),
    [
        ('Qwen3ForCausalLM', 'Qwen3-4B', 'qwen3-4b', 'qwen3'),
        ('Qwen3ForCausalLM', 'Qwen3-4B-Base', 'qwen3-4b-base', 'default-generation'),
        ('Qwen3ForCausalLM', 'Qwen3-4B-Instruct-2507', 'qwen3-4b-instruct-2507', 'qwen3_nothinking'),
        ('LlamaForCausalLM', 'Llama-2-7b-chat-ms', 'llama2-7b-chat', 'llama'),
        (
            'LlamaForCausalLM',
            'meta-llama--Llama-3.2-1B-Instruct/a',
            'llama3_2-1b-instruct',
            'llama3_2',
        ),
        ('LlamaForCausalLM', 'LLM-Research/Meta-Llama-3___1-8B-Instruct', 'llama3_1-8b-instruct', 'llama3_1'),
        ('LlamaForCausalLM', 'Yi-6B-Chat', 'yi-6b-chat', 'yi'),
        ('MistralForCausalLM', 'Mistral-7B-Instruct-v0.2', 'mistral-7b-instruct-v2', None),
        ('Qwen2ForCausalLM', 'Qwen1.5-7B-Chat', 'qwen1half-7b-chat', None),
    ],
)
def test_further_families_are_found_in_a_folder(tmp_path, architecture, folder, model_type, template):
    source = resolve_model(model_id_or_path=write_config(tmp_path / folder, architecture))
    assert (source.model_type, source.template) == (model_type, template)


def test_unknown_hub_id_is_completed_after_the_download(tmp_path):
    source = resolve_model(model_id_or_path='someone/their-model')
    assert (source.model_type, source.template, source.name) == (None, None, 'their-model')
    done = complete(source, write_config(tmp_path / 'Qwen2-7B-Instruct'))
    assert (done.model_type, done.template) == ('qwen2-7b-instruct', 'qwen')


def test_lora_checkpoint(tmp_path):
    folder = write_adapter(
        tmp_path / 'checkpoint-3', model_type='tiny-chat', model_id_or_path=None, template_type='AUTO', system='hi'
    )
    source = resolve_model(ckpt_dir=folder)
    assert (source.model_type, source.adapter, source.template) == ('tiny-chat', folder, 'tiny-chat')
    assert source.model_id_or_path == 'tiny-chat' and source.ckpt_args['system'] == 'hi'


def test_typed_values_win_over_the_checkpoint(tmp_path):
    folder = write_adapter(tmp_path / 'checkpoint-3', model_type='tiny-chat')
    source = resolve_model(model_type='qwen2-7b', model_id_or_path='/elsewhere', ckpt_dir=folder)
    assert (source.model_type, source.model_id_or_path, source.adapter) == ('qwen2-7b', '/elsewhere', folder)


def test_saved_template_is_kept(tmp_path):
    folder = write_adapter(tmp_path / 'c', model_type='tiny-chat', template_type='chatml')
    assert resolve_model(ckpt_dir=folder).template == 'chatml'


def test_adapter_of_another_tool(tmp_path):
    assert (
        resolve_model(ckpt_dir=write_adapter(tmp_path / 'a', 'Qwen/Qwen2.5-7B-Instruct')).model_type
        == 'qwen2_5-7b-instruct'
    )
    with pytest.raises(UsageError, match='does not say which model'):
        resolve_model(ckpt_dir=write_adapter(tmp_path / 'b'))


def test_whole_checkpoint(tmp_path):
    folder = write_config(tmp_path / 'checkpoint-3-merged')
    Path(folder, 'sft_args.json').write_text(
        json.dumps({'model_type': 'tiny-chat', 'sft_type': 'full', 'template_type': None})
    )
    source = resolve_model(ckpt_dir=folder)
    assert (source.model_type, source.model_id_or_path, source.adapter) == ('tiny-chat', folder, None)
    assert source.template == 'tiny-chat'
    with pytest.raises(UsageError, match='whole model'):
        resolve_model(model_id_or_path='/x', ckpt_dir=folder)


def test_wrong_checkpoint_folders(tmp_path):
    for name in ('checkpoint-4', 'checkpoint-30', 'checkpoint-4-merged'):
        write_adapter(tmp_path / 'v0' / name)
    with pytest.raises(UsageError, match='did you mean its checkpoint-30'):
        resolve_model(ckpt_dir=str(tmp_path / 'v0'))
    with pytest.raises(UsageError, match="did you mean 'checkpoint-30'"):
        resolve_model(ckpt_dir=str(tmp_path / 'v0' / 'checkpoint-3'))
    (tmp_path / 'v0' / 'checkpoint-30' / 'sft_args.json').write_text('{')
    with pytest.raises(SwiftliteError, match=r'sft_args\.json'):
        resolve_model(ckpt_dir=str(tmp_path / 'v0' / 'checkpoint-30'))


def test_nothing_named():
    with pytest.raises(UsageError, match='--model_type'):
        resolve_model()
    with pytest.raises(UsageError, match='no folder, model type or hub id'):
        resolve_model(model_id_or_path='/no/such/folder')


def test_registry_needs_only_the_standard_library():
    code = (
        'import sys, swiftlite.registry.resolve as r; r.resolve_model("tiny-chat");'
        'third = {m.split(".")[0] for m in sys.modules} & {"torch", "numpy", "transformers", "yaml", "jinja2"};'
        'assert not third, third'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_lists_of_ms_swift(tmp_path: Path) -> None:
    """Its args hold [null, null] for names that were not given, and one name without a list."""
    (tmp_path / 'sft_args.json').write_text('{"model_name": [null, null], "model_author": "Me", "dataset": ["a"]}')
    saved = read_checkpoint_args(str(tmp_path))
    assert saved == {'model_name': None, 'model_author': ['Me'], 'dataset': ['a']}


@pytest.mark.parametrize('name', ['x' * 5000, f'{"x" * 5000}/y z', 'a\0b c'])
def test_names_that_no_file_can_have_are_no_folders(name: str) -> None:
    for given in ({'model_id_or_path': name}, {'ckpt_dir': name}):
        with pytest.raises(UsageError, match='is no folder'):
            resolve_model(**given)
    with pytest.raises(SwiftliteError, match='no folder, model type or hub id'):
        local_path(name)
