"""Trains the byte-level BPE of tiny-chat: NFC, single digits, one token a Chinese character.

    python examples/tiny-chat/tokenizer.py --data data/train.jsonl --output swiftlite/assets/tiny-chat

writes tokenizer.json and tokenizer_config.json in Hugging Face layout.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from vocabulary import ENGLISH, HAN, HAN_COMMON, assistant, firm, person

VOCAB_SIZE = 8192
CONTEXT = 2048
CONTROL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
MARKS = ('<tool_call>', '</tool_call>')  # kept in decoded text, so that clients can read calls
# Contractions | letters with one leading mark | one digit | punctuation | line ends | spaces
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def general_text(rng: random.Random) -> Iterator[str]:
    """Words and characters beyond the conversations; repeats set their rank in the merges."""
    for word in ENGLISH:
        yield from (word, ' ' + word) * 60
        yield from (word.title(), ' ' + word.title()) * 12
        yield ' ' + word.upper()
    for character in HAN:
        yield from (character,) * 60
    for character in HAN_COMMON:
        yield from (character,) * 60
    for _ in range(4_000):
        yield ' '.join((assistant(rng, 'en'), firm(rng, 'en'), person(rng, 'en')))


def conversation_text(path: Path, limit: int) -> Iterator[str]:
    with path.open(encoding='utf-8') as file:
        for _, line in zip(range(limit), file, strict=False):
            row = json.loads(line)
            for message in row['messages']:
                yield message['content']
                for call in message.get('tool_calls', ()):
                    yield json.dumps(call['function'], ensure_ascii=False)
            for tool in row.get('tools', ()):
                yield json.dumps(tool, ensure_ascii=False)
    prompt = Environment().from_string(chat_template()).render(messages=[{'role': 'tool', 'content': ''}], tools=[{}])
    yield from ('system', 'user', 'assistant', prompt) * 60


def train(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE whose merges never cross a Chinese character, so that text splits alike in every context."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior='isolated')
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = pre_tokenizers.Split(Regex(r'\p{Han}'), behavior='isolated')
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, characters, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE - len(CONTROL) - len(MARKS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKS])
    return tokenizer


def chat_template() -> str:
    return (Path(__file__).parent / 'chat_template.jinja').read_text(encoding='utf-8')


def config() -> dict[str, object]:
    """tokenizer_config.json."""
    return {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': CONTEXT,
        'add_prefix_space': False,
        'bos_token': None,
        'eos_token': '<|im_end|>',
        'pad_token': '<|endoftext|>',
        'unk_token': None,
        'clean_up_tokenization_spaces': False,
        'split_special_tokens': False,
        'chat_template': chat_template(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='train.jsonl of generate.py')
    parser.add_argument('--output', type=Path, required=True, help='checkpoint folder')
    parser.add_argument('--rows', type=int, default=20_000, help='conversations to learn from')
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    def texts() -> Iterator[str]:
        yield from conversation_text(args.data, args.rows)
        yield from general_text(random.Random(0))

    tokenizer = train(texts())
    tokenizer.save(str(args.output / 'tokenizer.json'))
    with (args.output / 'tokenizer_config.json').open('w', encoding='utf-8') as file:
        json.dump(config(), file, ensure_ascii=False, indent=2)
    print(f'{tokenizer.get_vocab_size()} tokens')


if __name__ == '__main__':
    main()
