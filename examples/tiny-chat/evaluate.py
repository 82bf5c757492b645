"""Scores a checkpoint on the conversations of generate.py, greedily, with transformers.

    python examples/tiny-chat/evaluate.py --model swiftlite/assets/tiny-chat --data data/heldout.jsonl

prints the share of right answers per kind of row and language; `--failures` writes the wrong ones.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

CALL = re.compile(r'<tool_call>\s*(.*?)\s*</tool_call>', re.DOTALL)


def parse(text: str) -> Any:
    """The JSON value of the text, or an error text that equals nothing."""
    try:
        return json.loads(text)
    except ValueError as error:
        return f'not JSON: {error}'


def contains(reply: str, key: str) -> bool:
    """The key as whole words; numbers as whole numbers."""
    before = r'(?<![A-Za-z0-9])' if key[0].isascii() and key[0].isalnum() else ''
    after = r'(?![A-Za-z0-9])' if key[-1].isascii() and key[-1].isalnum() else ''
    return re.search(before + re.escape(key) + after, reply) is not None


def right(reply: str, check: dict[str, Any]) -> bool:
    """Whether the reply passes the row's check; where there are keys, they decide and not the wording."""
    if 'contains' in check:
        return all(contains(reply, key) for key in check['contains'])
    if 'number' in check:
        numbers = re.findall(r'-?\d+', reply)
        return bool(numbers) and int(numbers[-1]) == check['number']
    if 'json' in check:
        return bool(parse(reply) == check['json'])
    if 'calls' in check:
        return [parse(call) for call in CALL.findall(reply)] == check['calls']
    return bool(reply == check['equals'])


def well_formed(reply: str, check: dict[str, Any]) -> bool:
    """Whether JSON can be read as such and a call as a call, right or wrong."""
    if 'json' in check:
        return not str(parse(reply)).startswith('not JSON')
    calls = [parse(call) for call in CALL.findall(reply)]
    return bool(calls) and all(isinstance(call, dict) and {'name', 'arguments'} <= call.keys() for call in calls)


def replies(model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch_size: int, max_new_tokens: int) -> list[str]:
    """Greedy continuations; rows with references of similar length share a batch, so that few steps are wasted."""
    import torch

    tokenizer.padding_side = 'left'
    prompts = [
        tokenizer.apply_chat_template(
            row['messages'][:-1], tools=row.get('tools'), tokenize=False, add_generation_prompt=True
        )
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda index: len(json.dumps(rows[index]['messages'][-1], ensure_ascii=False)))
    texts = [''] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer(
            [prompts[index] for index in chosen],
            return_tensors='pt',
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            output = model.generate(**batch.to(model.device), do_sample=False, max_new_tokens=max_new_tokens)
        new = output[:, batch['input_ids'].shape[1] :]
        for index, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            texts[index] = text.strip()
    return texts


def table(rows: list[dict[str, Any]], texts: list[str]) -> list[str]:
    """Lines 'task  en  zh  all  well-formed' in percent, with the number of rows."""
    scores: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, text in zip(rows, texts, strict=True):
        ok = right(text, row['check'])
        for column in (row['language'], 'all'):
            scores[row['task']][column].append(ok)
        if row['check'].keys() & {'json', 'calls'}:
            scores[row['task']]['well-formed'].append(well_formed(text, row['check']))
    columns = ('en', 'zh', 'all', 'well-formed')
    lines = ['| kind | ' + ' | '.join(columns) + ' | rows |', '| --- |' + ' ---: |' * (len(columns) + 1)]
    for task, by in scores.items():
        cells = [f'{100 * sum(by[column]) / len(by[column]):.1f}' if by[column] else '' for column in columns]
        lines.append(f'| {task} | ' + ' | '.join(cells) + f' | {len(by["all"])} |')
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', type=Path, required=True, help='checkpoint folder')
    parser.add_argument('--data', type=Path, required=True, help='heldout.jsonl or seen.jsonl of generate.py')
    parser.add_argument('--failures', type=Path, help='write wrong answers here')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--max-new-tokens', type=int, default=160)
    parser.add_argument('--limit', type=int, help='score only so many rows, evenly taken')
    args = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    dtype = torch.bfloat16 if device == 'cuda' else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line) for line in args.data.read_text(encoding='utf-8').splitlines()]
    if args.limit:
        rows = rows[:: max(1, len(rows) // args.limit)]
    texts = replies(model, tokenizer, rows, args.batch_size, args.max_new_tokens)
    print('\n'.join(table(rows, texts)))
    if args.failures:
        wrong = [
            {'task': row['task'], 'reply': text, 'check': row['check'], 'messages': row['messages'][:-1]}
            for row, text in zip(rows, texts, strict=True)
            if not right(text, row['check'])
        ]
        args.failures.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in wrong), encoding='utf-8')


if __name__ == '__main__':
    main()
