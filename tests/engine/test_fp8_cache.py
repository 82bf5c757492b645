"""An fp8 KV cache: half the bytes, nearly the same tokens, the same answers however they are computed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swiftlite import LLM, SamplingParams
from swiftlite.engine.runner import model_runner
from swiftlite.errors import SwiftliteError
from swiftlite.layers import attention
from swiftlite.layers.attention import Attention
from swiftlite.layers.prompt_attention import as_stored, prompt_attention
from swiftlite.template import get_template
from swiftlite_kernels.cache import reshape_and_cache_flash
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.tiny import tiny_qwen2

GENERATE = Path(__file__).parents[2] / 'examples' / 'tiny-chat' / 'generate.py'
PROMPTS = random_prompts(9, seed=4)


@pytest.fixture(scope='module')
def alone(base):
    """Each prompt's answer when it is the only request and nothing is cached."""
    llm = make_llm(base, kv_cache_dtype='fp8', enable_prefix_caching=False)
    return [run(llm, [p])[0] for p in PROMPTS]


@pytest.fixture(scope='module')
def held_out(tmp_path_factory):
    """Conversations that tiny-chat was not trained on: token ids, and the places its answers were learned from."""
    folder = tmp_path_factory.mktemp('data')
    command = [sys.executable, str(GENERATE), '--output', str(folder), '--rows', '1', '--eval-rows', '6']
    subprocess.run(command, check=True, capture_output=True)
    lines = (folder / 'heldout.jsonl').read_text(encoding='utf-8').splitlines()
    return [(row['messages'], row.get('tools')) for row in map(json.loads, lines)]


def best_tokens(llm, rows):
    """The most probable token at every place of every answer, given what stands before it."""
    template = get_template(None, llm.tokenizer)
    encoded = [template.encode_training(messages, tools=tools) for messages, tools in rows]
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
    outs = llm.generate([{'prompt_token_ids': e.input_ids} for e in encoded], params, use_tqdm=False)
    found = []
    for out, e in zip(outs, encoded, strict=True):
        for entries, label in zip(out.prompt_logprobs, e.labels, strict=True):
            if label != -100 and entries is not None:
                found.append(max(entries, key=lambda token, entries=entries: entries[token].logprob))
    return found


def test_tiny_chat_says_the_same(held_out):
    exact = best_tokens(LLM('tiny-chat', dtype='float32', num_gpu_blocks_override=2048), held_out)
    assert len(exact) >= 2000
    found = best_tokens(LLM('tiny-chat', dtype='float32', num_gpu_blocks_override=2048, kv_cache_dtype='fp8'), held_out)
    same = sum(a == b for a, b in zip(found, exact, strict=True))
    assert 0.99 * len(exact) <= same < len(exact)  # all the same: then the cache was not fp8


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'max_num_batched_tokens': 11, 'block_size': 4},
        {'num_gpu_blocks_override': 16, 'max_model_len': 100},
        {'num_gpu_blocks_override': 16, 'max_model_len': 100, 'lookahead': 1},
        {'tensor_parallel_size': 2, 'device': 'cpu'},
    ],
    ids=['batched', 'chunks', 'preempted', 'in flight', 'two ranks'],
)
def test_together_is_alone(base, alone, options):
    llm = make_llm(base, kv_cache_dtype='fp8', **options)
    if 'lookahead' in options:
        hold_results_back(llm.engine, seed=1)
    try:
        assert run(llm, PROMPTS) == alone
        assert run(llm, PROMPTS) == alone  # from the prefix cache
        stats = llm.engine.stats()
        assert stats['prefix_hits'] > 0
        assert ('num_gpu_blocks_override' in options) == (stats['num_preemptions'] > 0)
    finally:
        llm.shutdown()


def test_it_is_not_the_plain_cache(base, alone):
    assert run(make_llm(base), PROMPTS) != alone


def test_twice_the_blocks(base, monkeypatch):
    monkeypatch.setenv('SWIFTLITE_CPU_KVCACHE_GIB', '0.001')
    options = {'num_gpu_blocks_override': None, 'dtype': 'bfloat16', 'max_num_seqs': 200, 'device': 'cpu'}
    plain, fp8 = (
        make_llm(base, kv_cache_dtype=x, **options).engine.executor.runner.num_blocks for x in ('auto', 'fp8')
    )
    assert abs(fp8 - 2 * plain) <= 1


@pytest.fixture(scope='module')
def scaled(base, tmp_path_factory):
    """The base with factors of the cache, one layer a layout."""
    folder = tiny_qwen2(tmp_path_factory.mktemp('scaled'))
    tensors = load_file(folder / 'model.safetensors')
    layers = 'model.layers.0.self_attn', 'model.layers.1.self_attn'
    tensors |= {f'{layers[0]}.k_scale': torch.tensor(0.25), f'{layers[0]}.v_scale': torch.tensor([0.5])}
    tensors |= {f'{layers[1]}.k_proj.k_scale': torch.tensor(3.0), f'{layers[1]}.v_proj.output_scale': torch.tensor(2.0)}
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder


def attentions(llm):
    return list(llm.engine.executor.runner.model.attentions())


def test_factors_of_the_checkpoint(base, scaled):
    llm = make_llm(scaled, kv_cache_dtype='fp8')
    assert [(float(a.k_scale), float(a.v_scale)) for a in attentions(llm)] == [(0.25, 0.5), (3.0, 2.0)]
    found = run(llm, PROMPTS)
    # what is stored is divided, what is read multiplied: keys of the first block of the first prompt
    plain = make_llm(base)
    run(plain, PROMPTS)
    for factor, name in ((0.25, 'key_cache'), (0.5, 'value_cache')):
        first, want = getattr(attentions(llm)[0], name)[0].float() * factor, getattr(attentions(plain)[0], name)[0]
        assert (first - want).norm() < 0.04 * want.norm()
    assert run(make_llm(scaled), PROMPTS) == run(plain, PROMPTS)  # without fp8 they say nothing
    assert run(make_llm(scaled, kv_cache_dtype='fp8', max_num_batched_tokens=11), PROMPTS) == found


@pytest.mark.parametrize('value', [0.0, -1.0, float('nan')])
def test_factors_that_cannot_divide(scaled, tmp_path, value):
    for file in scaled.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / 'model.safetensors')
    tensors['model.layers.1.self_attn.k_proj.k_scale'] = torch.tensor(value)
    save_file(tensors, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(SwiftliteError, match=r'layers\.1\.self_attn\.k_proj\.k_scale.* finite and above 0'):
        make_llm(tmp_path)


@pytest.mark.parametrize('name', ['fp8', 'fp8_e5m2'])
def test_long_prompts_see_what_the_cache_holds(base, name):
    llm = make_llm(base, kv_cache_dtype=name)
    run(llm, [PROMPTS[0]], greedy(1))
    layer: Attention = attentions(llm)[0]
    device = layer.key_cache.device
    x = torch.randn(50, 2, 16, device=device) * 40
    scale, slots = torch.tensor([0.25], device=device), torch.arange(50, device=device)
    reshape_and_cache_flash(x, x, layer.key_cache, layer.value_cache, slots, name, scale, scale)
    assert torch.equal(as_stored(x, name, scale), layer.key_cache.flatten(0, 1)[:50].float() * scale)


def test_long_prompts_answer_like_chunks(base, alone, monkeypatch):
    """With the library's attention for prompts that have nothing in the cache, as on a GPU in 16 bits."""
    monkeypatch.setattr(model_runner, 'LONG_PROMPT', 5)
    calls = []
    monkeypatch.setattr(attention, 'prompt_attention', lambda *a: calls.append(a[4]) or prompt_attention(*a))
    llm = make_llm(base, kv_cache_dtype='fp8', enforce_eager=True)
    llm.engine.executor.runner._library_attention = True
    assert run(llm, PROMPTS) == alone
    assert calls


def test_unknown_names():
    with pytest.raises(SwiftliteError, match=r"kv_cache_dtype 'fp8_e4' is not known.*'fp8_e4m3'"):
        LLM('tiny-chat', kv_cache_dtype='fp8_e4')
