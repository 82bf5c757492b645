"""Templates beside the checkpoints' own as the package guidance (MIT) ships them; skipped where it is not installed."""

import ast
import importlib.util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftlite.template import get_template
from tests.template.test_families import alternating, thinking_turns
from tests.template.test_template import TOOLS, check, text_turns, tool_turns
from tests.template.test_tools import conversations

NAMES = {
    'llama': 'llama2_template',
    'llama3': 'llama3_template',
    'llama3_2': 'llama3dot2_template',
    'mistral': 'mistral_7b_instruct_template',
    'qwen2_5': 'qwen2dot5_it_template',
    'qwen3': 'qwen3_it_template',
}


@pytest.fixture(scope='module')
def templates(make_tokenizer):
    spec = importlib.util.find_spec('guidance')
    if spec is None or spec.origin is None:
        pytest.skip('pip install guidance, which holds published chat templates, to compare with them')
    tree = ast.parse(Path(spec.origin).with_name('chat.py').read_text(encoding='utf-8'))
    texts = {
        node.targets[0].id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    made = {}
    for name, variable in NAMES.items():
        tokenizer = make_tokenizer(name)
        tokenizer.chat_template = texts[variable]
        made[name] = get_template(name, tokenizer)
    return made


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), tools=st.sampled_from([None, TOOLS]))
def test_equal_to_the_published_template(templates, name, data, tools):
    turns = {
        'llama': alternating(),
        'mistral': alternating(),
        'llama3': text_turns,
        'llama3_2': conversations(one_call=True),
        'qwen2_5': st.one_of(text_turns, tool_turns),
        'qwen3': st.one_of(text_turns, tool_turns, thinking_turns),
    }[name]
    check(templates[name], data.draw(turns), tools if templates[name].tool_format else None)
