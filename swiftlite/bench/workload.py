"""Seeded requests: the same for the same seed on every machine, so that figures can be compared."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..args.bench import BenchArgs
    from ..args.bench_requests import RequestArgs

SMALL_VOCAB, VOCAB = 10_000, 50_000  # ids are drawn below these, which every large model has
FIRST_ID = 10  # special tokens of many models come before it
COMMON = (
    'time year people way day man thing woman life child world school state family student group country problem hand '
    'part place case week company system program question work government number night point home water room mother '
    'area money story fact month lot right study book eye job word business issue side kind head house service friend '
    'father power hour game line end member law car city name president team minute idea body information back parent '
    'face others level office door health person art war history party result change morning reason research girl guy'
)
WORDS = COMMON.split()


@dataclass(frozen=True)
class Request:
    prompt: list[int]  # token ids
    output_len: int  # tokens to generate, whatever they are
    adapter: int | None = None  # index of the adapter that answers


def mixed(
    count: int, input_len: tuple[int, int], output_len: tuple[int, int], vocab_size: int, seed: int
) -> list[Request]:
    """`count` requests of random token ids; lengths are uniform between the given limits, both included."""
    rng = random.Random(seed)
    return [
        Request([rng.randrange(vocab_size) for _ in range(rng.randint(*input_len))], rng.randint(*output_len))
        for _ in range(count)
    ]


def chat(rng: random.Random, vocab: int) -> Iterator[Request]:
    """Lengths as in shared conversations: lognormal, mean about 220 in and 200 out, from 4 to 1,024."""
    while True:
        n_in = _lognormal(rng, 220, 1.0)
        n_out = _lognormal(rng, 200, 0.8)
        yield Request(_ids(rng, n_in, vocab), n_out)


def nano(rng: random.Random, vocab: int) -> Iterator[Request]:
    """100–1,024 tokens in, 100–1,024 out: the benchmark of nano-vllm."""
    vocab = min(vocab, SMALL_VOCAB)
    while True:
        ids = [rng.randrange(vocab) for _ in range(rng.randint(100, 1024))]
        yield Request(ids, rng.randint(100, 1024))


def uniform(input_len: int, output_len: int) -> Callable[[random.Random, int], Iterator[Request]]:
    """Requests of one length."""

    def requests(rng: random.Random, vocab: int) -> Iterator[Request]:
        while True:
            yield Request(_ids(rng, input_len, vocab), output_len)

    return requests


def prefix(rng: random.Random, vocab: int) -> Iterator[Request]:
    """2,048 tokens that all have in common, then 64 of its own; 64 out."""
    head = _ids(rng, 2048, vocab)
    while True:
        yield Request(head + _ids(rng, 64, vocab), 64)


@dataclass(frozen=True)
class Workload:
    count: int
    draw: Callable[[random.Random, int], Iterator[Request]]


NAMED: dict[str, Workload] = {
    'chat': Workload(1000, chat),
    'nano': Workload(256, nano),
    'decode-1': Workload(1, uniform(128, 512)),
    'decode-64': Workload(64, uniform(512, 256)),
    'prefill': Workload(64, uniform(2048, 1)),
    'prefix': Workload(256, prefix),
}
MIXED_COUNT = 64


def named(name: str, count: int | None = None, seed: int = 0, vocab_size: int = VOCAB) -> list[Request]:
    """The first `count` requests of a workload, all without it. A vocabulary below 50,000 changes the token ids."""
    workload = NAMED[name]
    return list(islice(workload.draw(random.Random(seed), min(vocab_size, VOCAB)), count or workload.count))


def with_adapters(requests: Sequence[Request], count: int) -> list[Request]:
    """The requests with one of `count` adapters each, in turn."""
    return [replace(request, adapter=index % count) for index, request in enumerate(requests)]


def other_ids(requests: Sequence[Request], number: int, vocab_size: int = VOCAB) -> list[Request]:
    """Requests of the same lengths with other token ids, so that no cache holds what they begin with; 0: the same."""
    vocab = min(vocab_size, VOCAB)
    return [replace(r, prompt=[(token + 7 * number) % vocab for token in r.prompt]) for r in requests]


def warm_up(requests: Sequence[Request], count: int, vocab_size: int = VOCAB) -> list[Request]:
    """The first `count` requests, short and with other token ids."""
    return [replace(r, output_len=min(r.output_len, 32)) for r in other_ids(requests[:count], 1, vocab_size)]


def build(args: BenchArgs, name: str, vocab_size: int) -> list[Request]:
    """The requests of a workload by its name on the command line."""
    stem = name.removesuffix('-lora')
    requests = bare(args, stem, vocab_size, args.num_prompts)
    return with_adapters(requests, args.num_adapters) if name != stem else requests


def bare(args: RequestArgs, name: str, vocab_size: int, count: int | None) -> list[Request]:
    """The first `count` requests of a workload, all without it; none has an adapter."""
    if name == 'mixed':
        lengths = (args.min_input_len, args.max_input_len), (args.min_output_len, args.max_output_len)
        return mixed(count or MIXED_COUNT, *lengths, vocab_size, args.seed)
    return named(name, count, args.seed, vocab_size)


def as_text(request: Request) -> str:
    """As many common words as the prompt has token ids; most tokenizers make about one token of each."""
    return ' '.join(WORDS[token % len(WORDS)] for token in request.prompt)


def _ids(rng: random.Random, count: int, vocab: int) -> list[int]:
    return [rng.randrange(FIRST_ID, vocab) for _ in range(count)]


def _lognormal(rng: random.Random, mean: float, sigma: float, low: int = 4, high: int = 1024) -> int:
    value = int(rng.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma))
    return max(low, min(high, value))
