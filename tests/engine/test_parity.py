"""The engine against transformers: fp32, greedy, equal wherever the two best logits differ by more than 1e-4."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import LoRARequest
from swiftlite.registry.families import FAMILIES
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.qwen_v1 import qwen_v1_logits, write_qwen_v1
from tests.tiny import tiny_adapter, tiny_model, tiny_qwen2

SHAPES = {
    'gqa2': {},
    'mha': {'num_key_value_heads': 4},
    'gqa4': {'num_attention_heads': 8, 'num_key_value_heads': 2},
    'gqa7': {'hidden_size': 56, 'num_attention_heads': 7, 'num_key_value_heads': 1},
    'tied': {'tie_word_embeddings': True},
    'odd-heads': {'hidden_size': 72, 'num_attention_heads': 3, 'num_key_value_heads': 3},
    'head80': {'hidden_size': 160, 'num_attention_heads': 2, 'num_key_value_heads': 1},
    'window': {'use_sliding_window': True, 'sliding_window': 12, 'max_window_layers': 1},
    'linear-rope': {'rope_parameters': {'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 10000.0}},
    'bf16': {'dtype': 'bfloat16'},
}

LLAMA3_ROPE = {
    'rope_type': 'llama3',
    'rope_theta': 500.0,
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 32,
}
# native architecture → name of a variant → config.json
VARIANTS = {
    'Qwen2ForCausalLM': {'biases': {}},
    'Qwen3ForCausalLM': {
        'wide-heads': {'head_dim': 32},
        'narrow-heads': {'head_dim': 8, 'tie_word_embeddings': True},
    },
    'LlamaForCausalLM': {
        'mha': {'num_key_value_heads': 4, 'rms_norm_eps': 1e-5},
        'tied': {'tie_word_embeddings': True},
        'llama3-rope': {'rope_parameters': LLAMA3_ROPE},
    },
    'MistralForCausalLM': {'window': {'sliding_window': 12}, 'no-window': {'sliding_window': None}},
}


def agree(model, prompt, tokens, tolerance=1e-4):
    """Every token is the reference's argmax, or its logit is within `tolerance` of the best."""
    ids = torch.tensor([prompt + tokens[:-1]])
    logits = model(ids).logits[0, len(prompt) - 1 :].float()
    chosen = logits[torch.arange(len(tokens)), torch.tensor(tokens)]
    return bool((logits.max(dim=-1).values - chosen <= tolerance).all())


@pytest.mark.parametrize('shape', SHAPES)
def test_greedy_tokens_are_those_of_transformers(shape, tmp_path):
    tiny_qwen2(tmp_path, seed=len(shape), **SHAPES[shape])
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompts = random_prompts(10, seed=3)
    for prompt, tokens in zip(prompts, run(make_llm(tmp_path), prompts, greedy(24)), strict=True):
        assert len(tokens) == 24
        assert agree(reference, prompt, tokens)


@pytest.mark.parametrize('architecture, variant', [(a, v) for a, found in VARIANTS.items() for v in found])
def test_every_family_is_as_in_transformers(architecture, variant, tmp_path):
    config = VARIANTS[architecture][variant]
    tiny_model(tmp_path, FAMILIES[architecture].hf_model_type, seed=len(variant), **config)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert reference.config.architectures == [architecture]
    prompts = random_prompts(8, seed=5)
    for prompt, tokens in zip(prompts, run(make_llm(tmp_path), prompts, greedy(24)), strict=True):
        assert agree(reference, prompt, tokens)


def test_no_family_is_left_out():
    assert {family.native for family in FAMILIES.values()} == set(VARIANTS)


def test_adapter_of_a_family_with_normalised_heads(tmp_path):
    """peft's own merge of an adapter over Qwen3, whose heads are wider than hidden_size says."""
    from peft import PeftModel

    base = tiny_model(tmp_path / 'base', 'qwen3', head_dim=32)
    adapter = tiny_adapter(tmp_path / 'adapter', base, seed=4, rank=5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    prompts = random_prompts(6, seed=6)
    llm = make_llm(base, enable_lora=True)
    answers = run(llm, prompts, greedy(20), LoRARequest('x', 1, str(adapter)))
    assert all(agree(merged, prompt, tokens) for prompt, tokens in zip(prompts, answers, strict=True))
    assert answers != run(llm, prompts, greedy(20))


def test_logits_are_those_of_transformers_at_every_position(base):
    """Log-probabilities of 20 tokens each way: an error too small to change a token shows here."""
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    llm = make_llm(base)
    for prompt in random_prompts(4, seed=9):
        out = llm.generate({'prompt_token_ids': prompt}, greedy(12, logprobs=20), use_tqdm=False)[0].outputs[0]
        logits = reference(torch.tensor([prompt + out.token_ids])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.float(), -1)
        for step, (token, found) in enumerate(zip(out.token_ids, out.logprobs, strict=True)):
            assert len(found) == 20 and found[token].rank == 1
            for i, value in found.items():
                assert value.logprob == pytest.approx(expected[step, i].item(), abs=2e-4)


def test_two_hundred_greedy_tokens(tmp_path):
    """A long answer in graphs and blocks of every size."""
    tiny_qwen2(tmp_path, seed=7)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompts = random_prompts(3, seed=11, high=40)
    for prompt, tokens in zip(prompts, run(make_llm(tmp_path), prompts, greedy(200)), strict=True):
        assert len(tokens) == 200
        assert agree(reference, prompt, tokens)


def test_bf16_is_no_further_from_fp32_than_transformers(tmp_path):
    """Mean error of the log-probabilities of all prompt tokens, against the same weights in fp32."""
    tiny_qwen2(tmp_path, seed=5, hidden_size=128, num_attention_heads=4, num_hidden_layers=4, dtype='bfloat16')
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    llm = make_llm(tmp_path, dtype='bfloat16', max_logprobs=-1)
    ours, theirs = [], []
    for prompt in random_prompts(12, seed=13, low=40):
        out = llm.generate({'prompt_token_ids': prompt}, greedy(1, prompt_logprobs=-1), use_tqdm=False)[0]
        found = torch.tensor([[step[i].logprob for i in range(128)] for step in out.prompt_logprobs[1:]])
        logits = (m(torch.tensor([prompt])).logits[0, :-1].float() for m in (exact, rounded))
        want, other = (torch.log_softmax(x, -1) for x in logits)
        ours.append((found - want).abs().mean())
        theirs.append((other - want).abs().mean())
    assert 0 < torch.stack(ours).mean() <= 1.2 * torch.stack(theirs).mean()


def test_qwen_v1_in_its_upstream_layout(tmp_path):
    tensors = write_qwen_v1(tmp_path)
    prompts = random_prompts(6, seed=11)
    llm = make_llm(tmp_path)
    for prompt, tokens in zip(prompts, run(llm, prompts, greedy(24)), strict=True):
        logits = qwen_v1_logits(tensors, prompt + tokens[:-1])[len(prompt) - 1 :]
        chosen = logits[torch.arange(24), torch.tensor(tokens)]
        assert (logits.max(dim=-1).values - chosen <= 1e-4).all()
    assert len({t for tokens in run(llm, prompts, greedy(24)) for t in tokens}) > 20  # no degenerate repetition


def test_an_adapter_is_its_merged_weights(base, adapters, tmp_path):
    """peft's own merge, then the plain engine."""
    from peft import PeftModel

    prompts = random_prompts(8, seed=12)
    llm = make_llm(base, enable_lora=True)
    for i, adapter in enumerate(adapters):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        for prompt, tokens in zip(
            prompts, run(llm, prompts, greedy(20), LoRARequest('x', i + 1, str(adapter))), strict=True
        ):
            assert agree(merged, prompt, tokens)
