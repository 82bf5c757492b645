"""Checkpoints that no table lists: an architecture that is known, and a chat template of their own."""

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from swiftlite.args.infer import InferArgs
from swiftlite.hub import asset_path
from swiftlite.infer.session import Session
from swiftlite.infer.setup import prepare
from tests.tiny import EXACT, tiny_model

OWN = (
    '{% for m in messages %}[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}'
    '{% if add_generation_prompt %}[assistant] {% endif %}'
)


@pytest.mark.parametrize('kind', ['llama', 'qwen2', 'qwen3', 'mistral'])
def test_a_plain_architecture_with_its_own_template(tmp_path: Path, kind: str) -> None:
    folder = tiny_model(tmp_path / f'someones-{kind}', kind, vocab_size=8192, eos_token_id=8189)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copy(Path(asset_path('tiny-chat'), name), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = OWN
    tokenizer.save_pretrained(folder)
    args = InferArgs(model_id_or_path=str(folder), temperature=0.0, max_new_tokens=4, **EXACT)
    session = Session(prepare(args), args)
    try:
        assert session.template.name == 'jinja'
        prompt = session.encode([{'role': 'user', 'content': 'hi'}])
        assert prompt == tokenizer.encode('[user] hi<|im_end|>[assistant] ', add_special_tokens=False)
        tokens = [token for _, delta in session.answer([prompt]) for token in delta.token_ids]
        assert 1 <= len(tokens) <= 4
    finally:
        session.close()
