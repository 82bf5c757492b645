"""Seeded requests of mixed length."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    prompt: list[int]  # token ids
    output_len: int  # tokens to generate, whatever they are


def mixed(
    count: int, input_len: tuple[int, int], output_len: tuple[int, int], vocab_size: int, seed: int
) -> list[Request]:
    """`count` requests of random token ids; lengths are uniform between the given limits, both included."""
    rng = random.Random(seed)
    return [
        Request([rng.randrange(vocab_size) for _ in range(rng.randint(*input_len))], rng.randint(*output_len))
        for _ in range(count)
    ]
