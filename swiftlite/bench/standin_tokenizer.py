"""A tokenizer of any size that knows every id, for models of which only the shape is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from .workload import WORDS

MARKS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LETTERS = 'etaoinshrdlucmfwypvbgkjqxz'


def write_tokenizer(folder: Path, vocab_size: int, eos: int) -> None:
    """tokenizer.json and tokenizer_config.json: bytes, common words, made-up words, marks of a chat up to `eos`.

    Every id below `vocab_size` is a token and decodes to some text. A common word after a space encodes to one token,
    other text to a token a byte.
    """
    common = dict.fromkeys(f'Ġ{word}'[:end] for word in WORDS for end in range(2, len(word) + 2))
    special = {eos - 2 + index: mark for index, mark in enumerate(MARKS)}
    tokens = _tokens(common)
    vocab = {special.get(index) or next(tokens): index for index in range(vocab_size)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(word[:-1], word[-1]) for word in common]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(MARKS))
    tokenizer.save(str(folder / 'tokenizer.json'))
    settings = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'eos_token': MARKS[2],
        'clean_up_tokenization_spaces': False,
        'chat_template': TEMPLATE,
    }
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8')


def _tokens(common: Iterable[str]) -> Iterator[str]:
    """Distinct tokens without end: the 256 bytes, common words and their beginnings, words of the letters."""
    known = set(common)
    yield from sorted(pre_tokenizers.ByteLevel.alphabet())
    yield from common
    for number in count():
        letters, rest = '', number
        while rest or len(letters) < 3:
            rest, digit = divmod(rest, len(LETTERS))
            letters += LETTERS[digit]
        if (word := f'Ġ{letters}') not in known:
            yield word
