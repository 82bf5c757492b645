"""Adds conversations in which the assistant writes the rare tokens, so that few are left that training never touched.

    python examples/tiny-chat/coverage.py --data data/train.jsonl --tokenizer checkpoint

A token that no answer holds is pushed away at every step, and no LoRA brings it back. Each rare one is put into texts
to repeat, beside other rare ones; characters beyond the vocabulary cover the tokens that are parts of them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

from talk import ECHO
from tokenizers import Tokenizer

PARTS = ((0x00C0, 0x024F), (0x0391, 0x044F), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0x1F300, 0x1F64F))


def written(data: Path, tokenizer: Tokenizer) -> Counter[int]:
    """How often each token is part of what the assistant says."""
    counts: Counter[int] = Counter()
    texts = [
        message['content']
        for line in data.open(encoding='utf-8')
        for message in json.loads(line)['messages']
        if message['role'] == 'assistant' and message.get('content')
    ]
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        counts.update(encoding.ids)
    return counts


def texts_with(token: int, others: list[str], tokenizer: Tokenizer) -> list[str]:
    """Texts that hold the token: at the start, after a space, after a digit; not all of them do for every token."""
    piece = tokenizer.decode([token], skip_special_tokens=False)
    if not piece.strip() or '\ufffd' in piece:
        return []
    joined = (' '.join([piece.strip(), *others]), ' '.join([*others, piece.strip()]), f'{others[0]} 1{piece.strip()}')
    return [text for text in joined if token in tokenizer.encode(text, add_special_tokens=False).ids]


def echo(text: str, rng: random.Random) -> dict:
    asked = rng.choice(ECHO[rng.choice(('en', 'zh'))].seen).format(t=text)
    return {'messages': [{'role': 'user', 'content': asked}, {'role': 'assistant', 'content': text}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='train.jsonl of generate.py; rows are appended')
    parser.add_argument('--tokenizer', type=Path, required=True, help='checkpoint folder of tokenizer.py')
    parser.add_argument('--least', type=int, default=20, help='times a token is to be written at least')
    parser.add_argument('--characters', type=int, default=4000, help='texts of characters beyond the vocabulary')
    parser.add_argument('--seed', type=int, default=42)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    tokenizer = Tokenizer.from_file(str(args.tokenizer / 'tokenizer.json'))
    special = {t for t, added in tokenizer.get_added_tokens_decoder().items() if added.content.startswith('<')}
    counts = written(args.data, tokenizer)
    rare = [t for t in range(tokenizer.get_vocab_size()) if counts[t] < args.least and t not in special]
    pieces = [piece for t in rare if (piece := tokenizer.decode([t]).strip()) and '\ufffd' not in piece]
    rows = []
    for token in rare:
        for _ in range(args.least):
            if counts[token] >= args.least:
                break
            options = texts_with(token, rng.sample(pieces, rng.randint(2, 5)), tokenizer)
            if not options:
                break
            text = rng.choice(options)
            counts.update(tokenizer.encode(text, add_special_tokens=False).ids)
            rows.append(echo(text, rng))
    for _ in range(args.characters):
        low, high = rng.choice(PARTS)
        text = ''.join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5)))
        counts.update(tokenizer.encode(text, add_special_tokens=False).ids)
        rows.append(echo(text, rng))
    rng.shuffle(rows)
    with args.data.open('a', encoding='utf-8') as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + '\n')
    left = sum(counts[t] < args.least for t in rare)
    print(f'{len(rows)} rows for {len(rare)} rare tokens; {left} are still written fewer than {args.least} times')


if __name__ == '__main__':
    main()
