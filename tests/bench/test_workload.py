"""The named workloads are what published figures were taken with, token by token."""

import hashlib
import json

import pytest

from swiftlite.args.bench_requests import NAMED as NAMES
from swiftlite.args.bench_requests import PRESETS as PRESET_NAMES
from swiftlite.bench.floors import Device, common_head, floor_seconds
from swiftlite.bench.presets import PRESETS, write_preset
from swiftlite.bench.workload import NAMED, WORDS, Request, as_text, mixed, named, other_ids, warm_up, with_adapters
from swiftlite.checkpoint.config import read_config
from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.models.config import decoder_config
from swiftlite.registry.resolve import get_family

# sha256 of [[token ids, output length], …] as JSON; requests; tokens in and out
DEFINITIONS = {
    'chat': ('55c3b1979235440f', 1000, 215324, 191531),
    'nano': ('e17fd04843c8ad77', 256, 143618, 137723),
    'decode-1': ('3be8767ce7605987', 1, 128, 512),
    'decode-64': ('81e21bf2a01a147f', 64, 32768, 16384),
    'prefill': ('c6d28c48bcccb9fc', 64, 131072, 64),
    'prefix': ('e9678fd013340b30', 256, 540672, 16384),
}


@pytest.mark.parametrize('name', DEFINITIONS)
def test_a_named_workload_equals_its_definition(name):
    requests = named(name)
    digest = hashlib.sha256(json.dumps([[r.prompt, r.output_len] for r in requests]).encode()).hexdigest()[:16]
    tokens = sum(len(r.prompt) for r in requests), sum(r.output_len for r in requests)
    assert (digest, len(requests), *tokens) == DEFINITIONS[name]
    assert named(name, count=3)[: len(requests)] == requests[:3]
    assert named(name, seed=1)[0] != requests[0]


def test_the_flags_name_what_is_there():
    assert set(NAMES) == set(NAMED) == set(DEFINITIONS)
    assert set(PRESET_NAMES) == set(PRESETS)


def test_mixed_requests_are_seeded_and_within_their_limits():
    requests = mixed(50, (3, 9), (2, 4), 100, 7)
    assert requests == mixed(50, (3, 9), (2, 4), 100, 7) != mixed(50, (3, 9), (2, 4), 100, 8)
    assert {len(r.prompt) for r in requests} == set(range(3, 10)) and {r.output_len for r in requests} == {2, 3, 4}


def test_a_small_vocabulary_is_kept():
    assert max(max(r.prompt) for r in named('nano', 8, vocab_size=320)) < 320
    assert max(max(r.prompt) for r in warm_up(named('chat', 8, vocab_size=320), 8, 320)) < 320


def test_adapters_take_turns():
    assert [r.adapter for r in with_adapters(named('chat', 5), 2)] == [0, 1, 0, 1, 0]


def test_a_warm_up_shares_nothing_with_what_is_measured():
    requests = named('prefix', 4)
    warm = warm_up(requests, 3)
    assert [len(r.prompt) for r in warm] == [len(r.prompt) for r in requests[:3]] and warm[0].output_len == 32
    for other in (warm, other_ids(requests, 2), other_ids(requests, 3)):
        assert common_head([*requests, *other]) == 0
    assert other_ids(requests, 0) == requests


def test_words_stand_for_ids():
    text = as_text(Request([0, 1, len(WORDS)], 1))
    assert text == f'{WORDS[0]} {WORDS[1]} {WORDS[0]}'


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_is_a_model_of_its_size(name, tmp_path):
    config = read_config(write_preset(name, tmp_path, tokenizer=False))
    model = decoder_config(config, get_family(config['architectures'][0]))
    weights = sum(a * b for a, b in model.linear_sizes.values()) * model.num_layers
    weights += model.hidden_size * model.vocab_size * (1 if model.tie_word_embeddings else 2)
    assert weights / 1e9 == pytest.approx({'qwen2.5-7b': 7.6, 'qwen2.5-0.5b': 0.49, 'llama3-8b': 8.0}[name], rel=0.02)


def test_the_stand_in_tokenizer_knows_every_id(tmp_path):
    folder = write_preset('qwen2.5-0.5b', tmp_path)
    size = PRESETS['qwen2.5-0.5b']['vocab_size']
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == size
    assert all(tokenizer.decode([index]) for index in (300, 5000, 100_000, size - 1))
    assert tokenizer.decode(tokenizer('Hä? 你')['input_ids']) == 'Hä? 你'
    words = tokenizer(' '.join(WORDS))['input_ids']
    assert len(words) == len(WORDS) + len(WORDS[0]) - 1  # each one token, but the first, which no space precedes
    chat = tokenizer.apply_chat_template([{'role': 'user', 'content': 'time'}], tokenize=False)
    assert chat == '<|im_start|>user\ntime<|im_end|>\n'


def test_the_floor_is_the_time_of_the_bytes_or_of_the_products(tmp_path):
    config = read_config(write_preset('qwen2.5-7b', tmp_path, tokenizer=False))
    model = decoder_config(config, get_family('Qwen2ForCausalLM'))
    device = Device(4.2e12, 740e12, 2, 1024, 8192)
    # one sequence reads all weights but the embedding for every token: 14.15 GB
    assert 512 / floor_seconds(model, device, named('decode-1')) == pytest.approx(297, rel=0.01)
    # a long prompt costs two operations a weight and token, and its attention
    one = [Request(list(range(2048)), 1)]
    linear = 2 * sum(a * b for a, b in model.linear_sizes.values()) * 28 * 2048
    attention = 4 * 28 * 28 * 128 * 2048**2 / 2
    assert floor_seconds(model, device, one) == pytest.approx((linear + attention) / 740e12, rel=0.01)
    # what all have in common is computed once
    apart = [Request([i, *r.prompt[1:]], r.output_len) for i, r in enumerate(named('prefix', 64))]
    assert floor_seconds(model, device, apart) > 5 * floor_seconds(model, device, named('prefix', 64))
