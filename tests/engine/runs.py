"""Shorthands for running prompts through a tiny engine."""

import random

from swiftlite import LLM, SamplingParams


def make_llm(model, **options):
    settings = {
        'skip_tokenizer_init': True,
        'dtype': 'float32',
        'max_num_seqs': 16,
        'num_gpu_blocks_override': 200,
    } | options
    return LLM(model=str(model), **settings)


def random_prompts(count, seed=0, low=1, high=60, vocab=128):
    rng = random.Random(seed)
    return [[rng.randrange(2, vocab) for _ in range(rng.randint(low, high))] for _ in range(count)]


def greedy(max_tokens=16, **options):
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False, **options)


def run(llm, prompts, params=None, lora=None):
    outs = llm.generate(
        [{'prompt_token_ids': p} for p in prompts], params or greedy(), use_tqdm=False, lora_request=lora
    )
    return [o.outputs[0].token_ids for o in outs]
