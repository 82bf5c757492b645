"""Every column layout, and every way a row can be wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.data.columns import RowError, to_conversation
from swiftlite.data.rows import Drops, load_rows, names
from swiftlite.errors import SwiftliteError, UsageError

WHO = names(['小黄', 'Xiao Huang'], ['魔搭', 'ModelScope'])
USER, REPLY = {'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'hello'}
SYSTEM = {'role': 'system', 'content': 'Be kind.'}


@pytest.mark.parametrize(
    ('record', 'messages'),
    [
        ({'messages': [USER, REPLY]}, [USER, REPLY]),
        ({'messages': [USER, REPLY], 'system': 'Be kind.'}, [SYSTEM, USER, REPLY]),
        ({'messages': json.dumps([USER, REPLY])}, [USER, REPLY]),
        ({'conversations': [{'from': 'human', 'value': 'hi'}, {'from': 'gpt', 'value': 'hello'}]}, [USER, REPLY]),
        ({'query': 'hi', 'response': 'hello'}, [USER, REPLY]),
        ({'query': 'hi', 'response': 'hello', 'system': 'Be kind.'}, [SYSTEM, USER, REPLY]),
        ({'query': 'hi', 'response': 'hello', 'history': [['hi', 'hello']]}, [USER, REPLY, USER, REPLY]),
        ({'query': 'hi', 'response': 'hello', 'history': '[["hi", "hello"]]'}, [USER, REPLY, USER, REPLY]),
        ({'question': 'hi', 'answer': 'hello'}, [USER, REPLY]),
        ({'instruction': 'hi', 'output': 'hello'}, [USER, REPLY]),
        ({'instruction': 'hi', 'input': '', 'output': 'hello'}, [USER, REPLY]),
        ({'instruction': 'Add.', 'input': '1 2', 'output': '3'}, [{'role': 'user', 'content': 'Add.\n1 2'}, None]),
    ],
)
def test_layouts(record, messages):
    found, tools = to_conversation(record)
    assert tools is None
    assert [a for a, b in zip(found, messages, strict=True) if b is not None] == [m for m in messages if m is not None]


def test_tools_and_loss_flags_are_kept():
    call = {'type': 'function', 'function': {'name': 'f', 'arguments': {}}}
    tool = {'type': 'function', 'function': {'name': 'f'}}
    turns = [USER, {'role': 'assistant', 'content': None, 'tool_calls': [call]}, {**REPLY, 'loss': False}]
    messages, tools = to_conversation({'messages': turns, 'tools': json.dumps([tool])})
    assert tools == [tool]
    assert messages[1]['tool_calls'] == [call]
    assert messages[2]['loss'] is False


@pytest.mark.parametrize(
    ('record', 'part'),
    [
        ([1], 'a list, not an object'),
        ({'textt': 3}, 'among the columns (textt)'),
        ({'text': 3}, "'text' is a number, not text"),
        ({'querry': 'x', 'response': 'y'}, "'querry' is given; did you mean 'query'?"),
        ({'question': None, 'answer': 'y'}, "'question' is null, not text"),
        ({'messages': None}, "'messages' is null"),
        ({'query': 'x'}, "has 'query' but no 'response'"),
        ({'query': 'x', 'responce': 'y'}, "did you mean 'response'?"),
        ({'query': 3, 'response': 'y'}, "'query' is a number, not text"),
        ({'instruction': 'x'}, "no 'output'"),
        ({'messages': []}, 'an empty list'),
        ({'messages': [{'role': 'robot', 'content': 'x'}]}, "the role 'robot'"),
        ({'messages': [{'role': 'user', 'content': None}]}, 'is null, not text'),
        ({'messages': [USER]}, 'no assistant message'),
        ({'messages': [USER, {**REPLY, 'loss': False}]}, 'no assistant message'),
        ({'query': 'a', 'response': 'b', 'history': [['only one']]}, 'no list of [query, response] pairs'),
        ({'query': 'a', 'response': 'b', 'tools': '{'}, "'tools' is text that is not valid JSON"),
        ({'query': 'a', 'response': 'b', 'tools': '[' * 100_000}, "'tools' is text that is not valid JSON"),
        ({'query': 'a', 'response': 'b', 'images': ['a.png']}, "has 'images', but models read text"),
        ({'messages': [SYSTEM, USER, REPLY], 'system': 'Be rude.'}, 'another system message'),
    ],
)
def test_defects_are_named(record, part):
    with pytest.raises(RowError) as error:
        to_conversation(record)
    assert part in str(error.value)


COLUMNS = ['messages', 'conversations', 'query', 'response', 'history', 'system', 'tools', 'instruction', 'output']
COLUMNS += ['role', 'content', 'from', 'value', 'user', 'assistant']
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(COLUMNS), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_record_is_read_or_refused(record):
    try:
        messages, _ = to_conversation(record)
    except RowError as error:
        assert str(error)
    else:
        assert any(message['role'] == 'assistant' for message in messages)


def test_files_of_every_kind_give_the_same_rows(tmp_path):
    records = [{'query': f'q{i}', 'response': f'r,"{i}\n你好'} for i in range(3)]
    (tmp_path / 'a.jsonl').write_text('\n\n'.join(map(json.dumps, records)), encoding='utf-8')
    (tmp_path / 'a.json').write_text(json.dumps(records), encoding='utf-8-sig')
    lines = ['query,response'] + ['{},"{}"'.format(r['query'], r['response'].replace('"', '""')) for r in records]
    (tmp_path / 'a.csv').write_text('\n'.join(lines), encoding='utf-8')
    found = [load_rows([str(tmp_path / f'a.{kind}')], None, 0, Drops()) for kind in ('jsonl', 'json', 'csv')]
    assert [[row.messages for row in rows] for rows in found[1:]] == [[row.messages for row in found[0]]] * 2
    assert len(found[0]) == 3
    assert found[0][1].where.endswith('a.jsonl, line 3')


def test_json_with_an_object_a_line_is_read_as_jsonl(tmp_path):
    (tmp_path / 'a.json').write_text('{"query": "a", "response": "b"}\n\n{"query": "c", "response": "d"}\n{bad\n')
    with (tmp_path / 'a.json').open('ab') as stream:
        stream.write(b'{"query": "\xff", "response": "b"}\n')
    drops = Drops()
    rows = load_rows([str(tmp_path / 'a.json')], None, 0, drops)
    assert [row.messages[0]['content'] for row in rows] == ['a', 'c'] and rows[1].where.endswith('a.json, line 3')
    lines = [
        f'1 x {why} (first: {tmp_path / "a.json"}, line {n})' for why, n in (('broken JSON', 4), ('not UTF-8 text', 5))
    ]
    assert drops.lines() == lines


def test_many_reasons_are_not_all_printed(tmp_path):
    rows = ({'messages': [{'role': f'robot {i // 2}', 'content': 'x'}]} for i in range(60))
    (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    drops = Drops()
    assert load_rows([str(tmp_path / 'a.jsonl')], None, 0, drops) == [] and drops.total == 60
    lines = drops.lines()
    assert len(lines) == 21 and lines[-1] == f'20 x 10 other reasons (first: {tmp_path / "a.jsonl"}, line 41)'


def test_csv_rows_end_at_line_breaks_only(tmp_path):
    """U+2028, form feed and the like are text; unquoted commas are not guessed at."""
    (tmp_path / 'a.csv').write_bytes('query,response\r\nq,a\u2028b\x0cc\r\nq,"x, y"\r\nq,x, y\r\n'.encode())
    drops = Drops()
    rows = load_rows([str(tmp_path / 'a.csv')], None, 0, drops)
    assert [row.messages[-1]['content'] for row in rows] == ['a\u2028b\x0cc', 'x, y']
    assert drops.lines() == [
        '1 x the row has more values than there are columns: texts with commas need quotes '
        f'(first: {tmp_path / "a.csv"}, row 4)'
    ]


def test_json_nested_beyond_reading_is_counted(tmp_path):
    (tmp_path / 'a.jsonl').write_text('[' * 100_000 + '\n{"query": "a", "response": "b"}\n')
    drops = Drops()
    assert len(load_rows([str(tmp_path / 'a.jsonl')], None, 0, drops)) == 1
    assert 'broken JSON' in drops.reasons
    (tmp_path / 'a.json').write_text('[' * 100_000)
    with pytest.raises(SwiftliteError, match='is not JSON that can be read'):
        load_rows([str(tmp_path / 'a.json')], None, 0, drops)


def test_defective_rows_are_counted_with_their_first_line(tmp_path):
    file = tmp_path / 'b.jsonl'
    file.write_text('{"query": "a", "response": "b"}\n{broken\n{"query": 1}\n{also broken\n', encoding='utf-8')
    drops = Drops()
    assert len(load_rows([str(file)], None, 0, drops)) == 1
    assert drops.total == 3
    assert drops.lines()[0] == f'2 x broken JSON (first: {file}, line 2)'
    assert drops.lines()[1].endswith(f'(first: {file}, line 3)')


@pytest.mark.parametrize(
    ('name', 'text', 'part'),
    [
        ('a.json', '[{"query": "x",]', 'line 1 is not valid JSON'),
        ('a.json', '{"a": 1}', 'holds an object where a list'),
        ('a.jsonl', b'\xff\xfe\x00', 'is not UTF-8 text'),
    ],
)
def test_unreadable_files(tmp_path, name, text, part):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SwiftliteError) as error:
        load_rows([str(file)], None, 0, Drops())
    assert part in str(error.value)
    assert str(file) in str(error.value)


def test_sampling(tmp_path):
    file = tmp_path / 'c.jsonl'
    file.write_text('\n'.join(json.dumps({'query': str(i), 'response': 'r'}) for i in range(10)), encoding='utf-8')

    def draw(count, seed):
        return [row.messages[0]['content'] for row in load_rows([f'{file}#{count}'], None, seed, Drops())]

    assert draw(4, 1) == draw(4, 1)
    assert draw(4, 1) != draw(4, 2)
    assert len(set(draw(10, 1))) == 10
    assert sorted(draw(25, 1)).count('0') in (2, 3)
    assert len(draw(25, 1)) == 25


def test_wrong_names_of_data(tmp_path):
    (tmp_path / 'mine.jsonl').write_text('{}')
    for spec, part in (
        (str(tmp_path / 'mune.jsonl'), "did you mean '" + str(tmp_path / 'mine.jsonl')),
        ('self-cognitoin', "did you mean 'self-cognition'?"),
        ('self-cognition#none', 'a positive number of rows'),
        ('self-cognition#0', 'a positive number of rows'),
    ):
        with pytest.raises(UsageError) as error:
            load_rows([spec], WHO, 0, Drops())
        assert part in str(error.value)


def test_self_cognition_is_filled_and_alternates():
    rows = load_rows(['self-cognition'], WHO, 0, Drops())
    assert len(rows) >= 200
    texts = [' '.join(message['content'] for message in row.messages) for row in rows]
    assert not any('{{' in text for text in texts)
    chinese = ['小黄' in text or '魔搭' in text for text in texts]
    english = ['Xiao Huang' in text or 'ModelScope' in text for text in texts]
    assert not any(zh and en for zh, en in zip(chinese, english, strict=True))
    first = [any('\u4e00' <= c <= '\u9fff' for c in text) for text in texts[:20]]
    assert first == [first[0], not first[0]] * 10


def test_self_cognition_needs_names():
    with pytest.raises(UsageError, match='--model_name and --model_author'):
        load_rows(['self-cognition'], None, 0, Drops())
    with pytest.raises(UsageError, match='--model_author takes'):
        names(['a'], None)
    with pytest.raises(UsageError, match='--model_name takes'):
        names(['a', 'b', 'c'], ['d'])
    assert names(['a'], ['b']).name == {'zh': 'a', 'en': 'a'}


@pytest.mark.parametrize('extra', [{'rejected_response': 'No.'}, {'rejected': 'No.'}, {'label': False}])
def test_rows_of_preference_training_are_not_learnt_as_plain_ones(extra):
    row = {'query': 'Hi', 'response': 'Hello.'} | extra
    with pytest.raises(RowError, match=f"has '{next(iter(extra))}' of preference training"):
        to_conversation(row)
    assert to_conversation(row, answered=False)[0][0] == {'role': 'user', 'content': 'Hi'}
    assert to_conversation(row | dict.fromkeys(extra))[0][-1]['content'] == 'Hello.'
