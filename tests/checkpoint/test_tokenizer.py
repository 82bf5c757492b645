"""qwen.tiktoken read natively gives tiktoken's own ids."""

import base64
import random
import unicodedata

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.checkpoint import load_tokenizer
from swiftlite.checkpoint.tokenizer import QWEN_PATTERN, QWEN_SPECIAL, tiktoken_bpe
from swiftlite.errors import SwiftliteError

TEXT = "the cat's hat and the rat's mat; 2024 in 12 mats. 你好，世界！你好吗？ caf\u00e9\n\n  def f(x):\n\treturn x\n"


def ranks_of(text: str, size: int = 400) -> dict[bytes, int]:
    """A byte-level BPE vocabulary: single bytes, then random merges of the text's pieces."""
    ranks = {bytes([b]): b for b in range(256)}
    generator = random.Random(0)
    words = [word.encode() for word in (' ' + text).split(' ')] + [(' ' + word).encode() for word in text.split()]
    while len(ranks) < size:
        word = generator.choice(words)
        start = generator.randrange(len(word)) if word else 0
        piece = word[start : start + generator.randint(2, 5)]
        for end in range(2, len(piece) + 1):
            if piece[:end] not in ranks and piece[: end - 1] in ranks:
                ranks[piece[:end]] = len(ranks)
    return ranks


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('qwen')
    lines = [f'{base64.b64encode(token).decode()} {rank}' for token, rank in ranks_of(TEXT).items()]
    (folder / 'qwen.tiktoken').write_text('\n'.join(lines))
    return folder


@pytest.fixture(scope='module')
def both(folder):
    ranks = ranks_of(TEXT)
    special = {name: len(ranks) + i for i, name in enumerate(QWEN_SPECIAL)}
    oracle = tiktoken.Encoding('qwen', pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens=special)
    return load_tokenizer(folder), oracle


SAMPLES = [TEXT, '<|im_start|>user\nhi<|im_end|>\n', '<|extra_204|>', "I'LL we'Re", ' \n \n x', '1234567', '', 'ÅÄ']


@pytest.mark.parametrize('text', SAMPLES)
def test_ids_equal_tiktokens(both, text):
    ours, oracle = both
    wanted = oracle.encode(unicodedata.normalize('NFC', text), allowed_special='all')
    assert ours.encode(text) == wanted
    assert ours.decode(wanted) == unicodedata.normalize('NFC', text)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*sorted(set(TEXT)), '<|im_end|>', 'e\u0301', ' the', '你好']), max_size=30).map(''.join)
)
def test_ids_equal_tiktokens_on_any_text(both, text):
    ours, oracle = both
    assert ours.encode(text) == oracle.encode(unicodedata.normalize('NFC', text), allowed_special='all')


def test_special_tokens_follow_the_ranks():
    """With Qwen's 151643 ranks they are 151643, 151644, 151645 and 151646 to 151850."""
    assert QWEN_SPECIAL[:4] == ('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|extra_0|>')
    assert 151643 + len(QWEN_SPECIAL) == 151851


def test_properties(both):
    ours, _ = both
    assert (ours.eos_token, ours.pad_token, ours.bos_token) == ('<|im_end|>', '<|endoftext|>', None)
    assert ours.encode('e\u0301') == ours.encode('\u00e9')  # NFC
    assert len(ours.encode('2024')) == 4  # one digit at a time


def test_saved_and_loaded_again(both, tmp_path):
    ours, _ = both
    ours.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert [again.encode(text) for text in SAMPLES] == [ours.encode(text) for text in SAMPLES]
    assert (again.eos_token, again.pad_token) == (ours.eos_token, ours.pad_token)


def test_broken_lines_are_named(tmp_path):
    (tmp_path / 'qwen.tiktoken').write_text('YQ== 0\nYg== one\n')
    with pytest.raises(SwiftliteError, match=r'qwen\.tiktoken, line 2'):
        tiktoken_bpe(tmp_path / 'qwen.tiktoken', QWEN_PATTERN, ())


def test_errors(tmp_path):
    with pytest.raises(SwiftliteError, match='has no tokenizer'):
        load_tokenizer(tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text('{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    with pytest.raises(SwiftliteError, match='runs code of its own'):
        load_tokenizer(tmp_path)
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(SwiftliteError, match='cannot be read'):
        load_tokenizer(tmp_path)
