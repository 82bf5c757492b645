"""Data sets that go by a name: rows as their repositories hold them, in folders as the hubs lay them out."""

import json
import re

import pytest

from swiftlite import hub
from swiftlite.data.rows import Drops, load_rows
from swiftlite.data.sources import ID
from swiftlite.errors import SwiftliteError
from swiftlite.registry.datasets import COLUMNS, DATASETS, ROLES

ALPACA = {'instruction': 'q', 'input': '', 'output': 'r'}
SHAREGPT = {'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'r'}]}
MESSAGES = {'messages': [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'r'}]}
PAIRS = {'conversation': [{'human': 'q', 'assistant': 'r'}]}
TOOLS = {
    'conversations': [
        {'from': 'human', 'value': 'q'},
        {'from': 'function_call', 'value': '{"name": "f", "arguments": {"a": 1}}'},
        {'from': 'observation', 'value': '{"b": 2}'},
        {'from': 'gpt', 'value': 'r'},
    ],
    'tools': '[{"name": "f", "description": "d", "parameters": {"type": "object"}}]',
}
# name: a file of the repository, and a row of it that asks q and says r
LAYOUTS = {
    'alpaca-zh': ('train.csv', {'instruction': 'q', 'input': '', 'output': 'r'}),
    'alpaca-en': ('data/train-00000-of-00001.parquet', {**ALPACA, 'text': 'Below is an instruction'}),
    'alpaca-cleaned': ('alpaca_data_cleaned.json', ALPACA),
    'dolly-15k': (
        'databricks-dolly-15k.jsonl',
        {'instruction': 'q', 'context': '', 'response': 'r', 'category': 'open_qa'},
    ),
    'open-platypus-en': ('data/train-00000-of-00001.parquet', {**ALPACA, 'data_source': 'MATH/PRM-800K'}),
    'open-orca': (
        '1M-GPT4-Augmented.parquet',
        {'id': 'flan.1', 'system_prompt': 'Be kind.', 'question': 'q', 'response': 'r'},
    ),
    'slim-orca': (
        'oo-labeled_correct.gpt4.sharegpt.jsonl',
        {'conversations': [{'from': 'system', 'value': 'Be kind.', 'weight': None}, *SHAREGPT['conversations']]},
    ),
    'long-alpaca-12k': ('LongAlpaca-12k.json', {'instruction': 'q', 'output': 'r', 'input': '', 'file': 'x.pdf'}),
    'firefly-zh': ('firefly-train-1.1M.jsonl', {'kind': 'NLI', 'input': 'q', 'target': 'r'}),
    'coig-cqia': ('zhihu/zhihu_expansion.jsonl', {**ALPACA, 'task_type': {'major': ['x']}, 'answer_from': 'human'}),
    'belle-train-0.5M-CN': ('Belle_open_source_0.5M.json', ALPACA),
    'belle-train-1M-CN': ('Belle_open_source_1M.json', ALPACA),
    'belle-train-2M-CN': ('train_2M_CN.json', ALPACA),
    'advertise-gen-zh': ('train.json', {'content': 'q', 'summary': 'r'}),
    'webnovel-zh': ('novel_cn_token512_50k.json', ALPACA),
    'sharegpt-gpt4': ('sharegpt_gpt4.jsonl', SHAREGPT),
    'ultrachat-200k': (
        'data/train_sft-00000-of-00003-a3ecf92756993583.parquet',
        {'prompt': 'q', 'prompt_id': 'f0e3', **MESSAGES},
    ),
    'openhermes-2.5': ('openhermes2_5.json', {**SHAREGPT, 'source': 'airoboros2.2', 'system_prompt': None}),
    'tulu-v2-sft-mixture': ('data/train-00000-of-00003.parquet', {'dataset': 'flan', 'id': 'a', **MESSAGES}),
    'tulu-3-sft-mixture': ('data/train-00000-of-00006.parquet', {'id': 'a', **MESSAGES, 'source': 'b'}),
    'evol-instruct-v2': ('WizardLM_evol_instruct_V2_143k.json', {'idx': 'a', **SHAREGPT}),
    'magpie-pro-300k': ('data/train-00000-of-00005.parquet', {**SHAREGPT, 'uuid': 'a', 'language': 'EN'}),
    'lmsys-chat-1m': (
        'data/train-00000-of-00006-4feeb3f83346a0e9.parquet',
        {'conversation_id': 'a', 'model': 'vicuna-13b', 'conversation': MESSAGES['messages'], 'turn': 1},
    ),
    'belle-generated-chat-0.4M': ('generated_chat_0.4M.json', ALPACA),
    'moss-003-sft': ('conversations.jsonl', {'conversation_id': 1, 'category': 'Brainstorming', **PAIRS}),
    'ms-bench': (
        'data.jsonl',
        {'conversations': [{'from': 'user', 'value': 'q'}, {'from': 'assistant', 'value': 'r'}]},
    ),
    'deepctrl-sft': ('sft_data_zh.jsonl', {'id': '1', **ALPACA, 'history': []}),
    'gsm8k': ('main/train-00000-of-00001.parquet', {'question': 'q', 'answer': 'r'}),
    'math-instruct': ('MathInstruct.json', {'source': 'data/CoT/aqua_rat.json', 'instruction': 'q', 'output': 'r'}),
    'metamath-qa': (
        'MetaMathQA-395K.json',
        {'type': 'MATH_AnsAug', 'query': 'q', 'original_question': 'o', 'response': 'r'},
    ),
    'orca-math': ('data/train-00000-of-00001.parquet', {'question': 'q', 'answer': 'r'}),
    'numina-math-cot': (
        'data/train-00000-of-00005.parquet',
        {'source': 'aops', 'problem': 'p', 'solution': 's', **MESSAGES},
    ),
    'blossom-math-zh': (
        'blossom-math-v2-10k.json',
        {'id': 'a', 'input': 'q', 'output': 'r', 'answer': '2', 'dataset': 'x'},
    ),
    'school-math-zh': ('school_math_0.25M.json', ALPACA),
    'code-alpaca-en': ('code_alpaca_20k.json', ALPACA),
    'codefuse-python-en': (
        'CodeExercise-Python-27k.json',
        {'id': 0, 'chat_rounds': [{'role': 'human', 'content': 'q'}, {'role': 'bot', 'content': 'r'}]},
    ),
    'codefuse-evol-instruction-zh': ('Evol-Instruction-66k.json', {'instruction': 'q', 'output': 'r'}),
    'sql-create-context-en': ('sql_create_context_v4.json', {'question': 'q', 'context': '', 'answer': 'r'}),
    'disc-law-sft-zh': ('DISC-Law-SFT-Pair.jsonl', {'id': 'legal_1', 'input': 'q', 'output': 'r'}),
    'disc-med-sft-zh': ('DISC-Med-SFT_released.jsonl', {'_id': 1, 'source': 'x', 'conversation': MESSAGES['messages']}),
    'glaive-toolcall-en': ('glaive_toolcall_en_1k.json', TOOLS),
    'glaive-toolcall-zh': ('glaive_toolcall_zh_1k.json', TOOLS),
    'open-thoughts-114k': (
        'data/train-00000-of-00006.parquet',
        {'system': 'Think.', 'conversations': [{'from': 'user', 'value': 'q'}, {'from': 'assistant', 'value': 'r'}]},
    ),
    'deepseek-r1-distill-zh': (
        'distill_r1_110k_sft.jsonl',
        {**ALPACA, 'repo_name': 'x', 'prompt_tokens_len': 3, 'score': 9},
    ),
    'wikipedia-zh': ('wikipedia-cn-20230720-filtered.json', {'completion': 'r', 'source': 'wikipedia.zh2307'}),
}
# .json files that hold a row a line
LINES = ('belle', 'advertise', 'webnovel', 'school', 'codefuse')


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A hub that is replaced by a folder: (folder, ids that were asked for)."""
    asked = []

    def fetch(hub_name, repo, revision, patterns, others, dataset=False):
        asked.append((hub_name, repo))
        return str(tmp_path / 'repo')

    monkeypatch.setattr(hub, '_download', fetch)
    monkeypatch.setattr(hub.importlib.util, 'find_spec', lambda name: name)  # with the extra 'hub'
    (tmp_path / 'repo').mkdir()
    (tmp_path / 'repo' / 'README.md').write_text('# data')
    return tmp_path / 'repo', asked


def write(path, row, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.parquet':
        pyarrow = pytest.importorskip('pyarrow')
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
    elif path.suffix == '.csv':
        path.write_text('\n'.join([','.join(row), *[','.join(map(str, row.values()))] * 2]) + '\n')
    elif path.suffix == '.json' and not name.startswith(LINES):
        path.write_text(json.dumps([row, row], indent=2))
    else:
        path.write_text((json.dumps(row) + '\n') * 2)


def test_every_name_has_a_layout():
    assert LAYOUTS.keys() | {'self-cognition'} == DATASETS.keys()


@pytest.mark.parametrize('name', LAYOUTS)
def test_rows_of(name, repository, monkeypatch):
    """The row is read, and what is no row of the training split is not."""
    folder, asked = repository
    monkeypatch.setenv('USE_HF', '1')
    file, row = LAYOUTS[name]
    write(folder / file, row, name)
    if not file.endswith('.parquet'):
        (folder / 'dataset_infos.json').write_text('{"default": {}}')
        write(folder / 'test.jsonl', {'query': 'held out', 'response': 'x'}, name)
    drops = Drops()
    rows = load_rows([name], None, 0, drops)
    assert len(rows) == 2 and not drops.total, drops.lines()
    messages = [m for m in rows[0].messages if m['role'] not in ('system', 'tool') and not m.get('tool_calls')]
    said = [(m['role'], m['content']) for m in messages]
    assert said == ([('text', 'r')] if name == 'wikipedia-zh' else [('user', 'q'), ('assistant', 'r')])
    systems = [m['content'] for m in rows[0].messages if m['role'] == 'system']
    assert systems == {'open-orca': ['Be kind.'], 'slim-orca': ['Be kind.'], 'open-thoughts-114k': ['Think.']}.get(
        name, []
    )
    assert bool(rows[0].tools) == name.startswith('glaive')
    info = DATASETS[name]
    assert asked[0] == (('Hugging Face', info.hf_id) if info.hf_id else ('ModelScope', info.ms_id))
    assert len(load_rows([f'{name}#5'], None, 0, Drops())) == 5


@pytest.mark.parametrize('name', LAYOUTS)
def test_records_of_the_table(name):
    info = DATASETS[name]
    for repo in filter(None, (info.ms_id, info.hf_id)):
        assert re.fullmatch(ID, repo)
    assert info.ms_id or info.hf_id
    assert set(info.columns.values()) <= set(COLUMNS) and set(info.roles.values()) <= set(ROLES)
    assert info.subset is None or info.subset in info.subsets
    assert info.help and info.help.isascii()


def test_a_set_of_one_hub_is_looked_up_there(repository, monkeypatch):
    folder, asked = repository
    monkeypatch.delenv('USE_HF', raising=False)
    write(folder / 'MetaMathQA-395K.json', LAYOUTS['metamath-qa'][1], 'metamath-qa')
    load_rows(['metamath-qa'], None, 0, Drops())
    assert asked == [('Hugging Face', 'meta-math/MetaMathQA')]


def test_subsets(repository, monkeypatch):
    folder, _ = repository
    monkeypatch.setenv('USE_HF', '1')
    for part in ('zhihu', 'ruozhiba', 'exam'):
        write(folder / part / f'{part}.jsonl', {**ALPACA, 'instruction': part}, part)
    write(folder / 'COIG-CQIA-full.jsonl', ALPACA, 'full')

    def found(spec):
        return {row.messages[0]['content'] for row in load_rows([spec], None, 0, Drops())}

    assert found('coig-cqia') == {'zhihu', 'ruozhiba', 'exam'}
    assert found('coig-cqia:zhihu/exam') == {'zhihu', 'exam'}
    with pytest.raises(SwiftliteError, match=r"no subset 'zhihuu'.*did you mean 'zhihu'"):
        found('coig-cqia:zhihuu')


def test_without_a_network(monkeypatch):
    """One sentence, with the hub, the id and what to do instead."""
    monkeypatch.setenv('USE_HF', '1')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(SwiftliteError) as error:
        load_rows(['alpaca-zh#10'], None, 0, Drops())
    assert re.fullmatch(
        r"'llm-wizard/alpaca-gpt4-data-zh' cannot be fetched from Hugging Face \(.*HF_HUB_OFFLINE is set.*\): "
        r'give a local file, or .*',
        str(error.value),
    )
