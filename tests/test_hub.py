"""Local folders, embedded models and the two hubs (which are replaced here: no network)."""

import importlib.util
import sys
import types

import huggingface_hub
import pytest

from swiftlite import hub
from swiftlite.errors import SwiftliteError


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """Calls that reached a hub, as (hub, repository, revision)."""
    calls = []

    def record(name):
        def fetch(repo, revision=None, **_options):
            calls.append((name, repo, revision))
            folder = tmp_path / repo
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'config.json').write_text('{}')
            (folder / 'model.safetensors').write_bytes(b'')
            return str(folder)

        return fetch

    module = types.ModuleType('modelscope_hub.compat.snapshot_download')
    module.snapshot_download = record('ms')
    find_spec = importlib.util.find_spec
    for name in ('modelscope_hub', 'modelscope_hub.compat'):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda n, *a: object() if n == 'modelscope_hub' else find_spec(n, *a)
    )
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', record('hf'))
    for name in ('USE_HF', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_folder_stays_as_it_is(tmp_path):
    assert hub.local_path(str(tmp_path)) == str(tmp_path)


def test_embedded_model_needs_no_hub(fetched, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, 'ASSETS', tmp_path)
    with pytest.raises(SwiftliteError, match='incomplete'):
        hub.local_path('tiny-chat')
    (tmp_path / 'tiny-chat').mkdir()
    assert hub.local_path('tiny-chat') == str(tmp_path / 'tiny-chat')
    assert fetched == []


def test_modelscope_is_the_default_and_use_hf_switches(fetched, monkeypatch):
    hub.local_path('qwen2_5-0_5b')
    hub.local_path('someone/theirs', 'v2')
    monkeypatch.setenv('USE_HF', '1')
    hub.local_path('qwen2_5-0_5b')
    hub.local_path('qwen2_5-0_5b', use_hf=False)
    assert fetched == [
        ('ms', 'Qwen/Qwen2.5-0.5B', None),
        ('ms', 'someone/theirs', 'v2'),
        ('hf', 'Qwen/Qwen2.5-0.5B', None),
        ('ms', 'Qwen/Qwen2.5-0.5B', None),
    ]


def test_without_modelscope_hugging_face_is_used_with_a_notice(fetched, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None)
    hub.local_path('qwen2_5-0_5b')
    assert fetched == [('hf', 'Qwen/Qwen2.5-0.5B', None)]
    assert 'swiftlite[hub]' in caplog.text


def test_failure_is_one_sentence(fetched, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError('no route to host\nand a page of advice')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fail)
    with pytest.raises(SwiftliteError, match='no route to host') as error:
        hub.local_path('Qwen/Qwen2.5-0.5B', use_hf=True)
    assert '\n' not in str(error.value) and 'local folder' in str(error.value)
    for installed, advice in ((object(), 'unset USE_HF for ModelScope'), (None, "pip install 'swiftlite[hub]'")):
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a, spec=installed: spec)
        with pytest.raises(SwiftliteError) as error:
            hub.local_path('Qwen/Qwen2.5-0.5B', use_hf=True)
        assert advice in str(error.value)


def test_a_part_of_the_files_is_refused(fetched, monkeypatch, tmp_path):
    """Whatever a hub's client calls a download: what lacks files is named, not run."""
    folder = tmp_path / 'half'
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda *a, **b: str(folder))
    (folder / 'config.json').write_text('{}')
    index = folder / 'model.safetensors.index.json'
    for text, said in (
        (
            '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
            'lacks model-1.safetensors and 1 more',
        ),
        ('{"weight_map": 3}', 'is damaged'),
        ('{', 'is damaged'),
    ):
        index.write_text(text)
        with pytest.raises(SwiftliteError, match=said):
            hub.local_path('someone/theirs', use_hf=True)
    index.unlink()
    with pytest.raises(SwiftliteError, match='lacks any safetensors file: either the download was broken off'):
        hub.local_path('someone/theirs', use_hf=True)


def test_offline_variables_reach_the_clients(fetched, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda repo, **options: asked.append(options) or fail())

    def fail():
        raise OSError('x')

    for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'):
        monkeypatch.setenv(name, '1')
        with pytest.raises(SwiftliteError, match=f'{name} is set and it is not in the cache'):
            hub.local_path('someone/theirs', use_hf=True)
        monkeypatch.delenv(name)
    assert [options['local_files_only'] for options in asked] == [True, True]


def test_neither_folder_nor_name(fetched):
    with pytest.raises(SwiftliteError, match="did you mean 'qwen-7b-chat'"):
        hub.local_path('qwen-7b-cat')
    assert fetched == []
