"""Tokens that a model did not have: in its tokenizer, and as rows of its embeddings and its output layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from swiftlite.errors import UsageError
from swiftlite.train.scale.ranks import say


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add special tokens; their ids follow the last one. UsageError for one that the tokenizer has already."""
    there = tokenizer.get_vocab()
    for token in tokens:
        if token in there:
            raise UsageError(f"--new_special_tokens '{token}' is a token of the model already (id {there[token]})")
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    if tokens:
        end = len(tokenizer)
        say(f'{len(tokens)} new tokens: {" ".join(tokens)} (ids {end - len(tokens)} to {end - 1})')


def make_room(model: Any, tokenizer: Any, count: int) -> None:
    """Rows for the last `count` tokens of the tokenizer, more of them where the model has none to spare.

    They start as the mean of the others, so that at first the model neither expects nor excludes them.
    (Hewitt, Initializing new word embeddings for pretrained language models, 2021)
    """
    first, end = len(tokenizer) - count, len(tokenizer)
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embed.weight
    for layer in (embed,) if tied else (embed, head):
        rows = layer.weight.detach()
        if len(rows) < end:
            rows = torch.cat([rows, rows.new_empty(end - len(rows), rows.shape[1])])
        rows[first:end] = rows[:first].float().mean(0).to(rows.dtype)
        layer.weight = nn.Parameter(rows, layer.weight.requires_grad)
    if tied:
        head.weight = embed.weight
    embed.num_embeddings = head.out_features = model.config.vocab_size = len(embed.weight)
    if hasattr(model, 'vocab_size'):
        model.vocab_size = len(embed.weight)
