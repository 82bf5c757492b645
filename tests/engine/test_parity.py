"""The engine against transformers: fp32, greedy, equal wherever the two best logits differ by more than 1e-4."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from swiftlite import LoRARequest
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.qwen_v1 import qwen_v1_logits, write_qwen_v1
from tests.tiny import tiny_qwen2

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
