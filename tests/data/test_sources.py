"""What --dataset names: hubs, subsets, counts, and the files of a repository."""

import importlib.util
import json

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.data.rows import Drops, load_rows
from swiftlite.data.sources import parse
from swiftlite.errors import SwiftliteError, UsageError


def jsonl(file, texts):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(json.dumps({'query': text, 'response': 'r'}) + '\n' for text in texts))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A data set on a hub that is replaced: its folder, and what was asked for."""
    asked = []

    def fetch(repo, **options):
        asked.append((repo, options['repo_type'], options['allow_patterns']))
        return str(tmp_path / 'repo')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fetch)
    monkeypatch.setenv('USE_HF', '1')
    (tmp_path / 'repo').mkdir()
    return tmp_path / 'repo', asked


def queries(spec):
    return [row.messages[0]['content'] for row in load_rows([spec], None, 0, Drops())]


def test_a_repository_by_its_id(repository):
    folder, asked = repository
    jsonl(folder / 'data' / 'train.jsonl', ['a', 'b'])
    jsonl(folder / 'data' / 'test.jsonl', ['c'])
    (folder / 'dataset_infos.json').write_text('{}')
    for spec in ('someone/theirs', 'HF::someone/theirs', 'hf::someone/theirs'):
        assert queries(spec) == ['a', 'b']
    assert len(queries('HF::someone/theirs#7')) == 7
    assert {(repo, kind) for repo, kind, _ in asked} == {('someone/theirs', 'dataset')}


def test_subsets(repository):
    folder, asked = repository
    jsonl(folder / 'zh' / 'rows.jsonl', ['z'])
    jsonl(folder / 'en' / 'rows.jsonl', ['e'])
    jsonl(folder / 'fr-train.jsonl', ['f'])
    assert queries('someone/theirs:zh') == ['z']
    assert queries('someone/theirs:zh/en') == ['z', 'e']
    assert queries('someone/theirs:fr') == ['f']
    with pytest.raises(SwiftliteError, match="no files of a subset 'de'"):
        queries('someone/theirs:de')
    jsonl(folder / 'sharegpt_gpt4.jsonl', ['s'])
    jsonl(folder / 'sharegpt_V3_format.jsonl', ['v'])
    assert queries('sharegpt-gpt4') == queries('sharegpt-gpt4:default#1') == ['s']
    assert queries('sharegpt-gpt4:V3_format') == ['v']
    assert asked[-1] == ('shibing624/sharegpt_gpt4', 'dataset', ['sharegpt_V3_format.jsonl'])


def test_columns_of_a_named_set(repository):
    folder, _ = repository
    (folder / 'firefly.jsonl').write_text('{"kind": "NLI", "input": "q", "target": "t"}\n')
    (row,) = load_rows(['firefly-zh'], None, 0, Drops())
    assert [m['content'] for m in row.messages] == ['q', 't']


def test_parquet_needs_its_reader(repository, monkeypatch, tmp_path):
    folder, _ = repository
    (folder / 'train-00000-of-00001.parquet').write_bytes(b'PAR1')
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'pyarrow' else find(name, *a))
    with pytest.raises(SwiftliteError, match='pip install pyarrow') as error:
        queries('someone/theirs')
    assert '\n' not in str(error.value)
    jsonl(folder / 'train.jsonl', ['a'])
    assert queries('someone/theirs') == ['a'], 'the same in a form that can be read'
    (folder / 'train.jsonl').unlink()
    (folder / 'train-00000-of-00001.parquet').unlink()
    with pytest.raises(SwiftliteError, match=r'has no \.jsonl'):
        queries('someone/theirs')


@pytest.mark.parametrize(
    ('spec', 'part'),
    [
        ('HG::someone/theirs', 'HF (Hugging Face) and MS (ModelScope)'),
        ('HF::theirs', 'owner/name'),
        ('MS::self-cognition', 'is not on ModelScope'),
        ('sharegpt-gpt4:V3_fromat', "did you mean 'V3_format'"),
        ('alpaca-zhh', "did you mean 'alpaca-zh'"),
        ('someone/theirs#0', 'a positive number'),
        ('someone/theirs#²', 'a positive number'),
        ('self-cognition#999999999999', 'at most 8 digits'),
        ('self-cognition#' + '9' * 9999, 'at most 8 digits'),
        ('nowhere/rows.jsonl', 'neither a file nor one of'),
        ('.', 'is a folder'),
    ],
)
def test_wrong_names(spec, part):
    with pytest.raises(UsageError) as error:
        parse(spec)
    assert part in str(error.value) and '\n' not in str(error.value)


def test_modelscope_that_is_not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda n, *a: None if n == 'modelscope_hub' else find(n, *a))
    with pytest.raises(SwiftliteError, match=r'swiftlite\[hub\]'):
        load_rows(['MS::someone/theirs'], None, 0, Drops())


@given(st.text('aZ/:#.-_0 ~\n²%', max_size=12))
def test_any_spec_is_a_source_or_refused(spec):
    try:
        parse(spec)
    except UsageError as error:
        assert str(error)
