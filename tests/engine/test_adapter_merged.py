"""In fp32 every adapter's tokens in a mixed batch are those of its merged weights: any ranks, targets and shapes."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from swiftlite import LoRARequest
from swiftlite.checkpoint import Adapter, LoRAWeights, iter_tensors, read_adapter, write_adapter
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.tiny import tiny_adapter, tiny_model

SHAPES = [
    {'hf_model_type': 'qwen2', 'num_hidden_layers': 2},
    {'hf_model_type': 'qwen2', 'num_hidden_layers': 1, 'hidden_size': 40, 'intermediate_size': 56,
     'num_attention_heads': 5, 'num_key_value_heads': 1, 'tie_word_embeddings': True},
    {'hf_model_type': 'qwen3', 'num_hidden_layers': 1, 'head_dim': 32, 'intermediate_size': 72},
]  # fmt: skip


class Pair:
    """An engine with adapters, small enough that they and the cache are always short, and one whose weights are set."""

    def __init__(self, folder, seed, **shape):
        self.base = tiny_model(folder, seed=seed, **shape)
        tight = {'max_loras': 2, 'max_lora_rank': 24, 'max_cpu_loras': 2, 'num_gpu_blocks_override': 22}
        self.adapted = make_llm(
            self.base, enable_lora=True, max_num_batched_tokens=24, max_model_len=64, block_size=4, **tight
        )
        self.plain = make_llm(self.base, enable_prefix_caching=False)
        self.tensors = {name: tensor.clone() for name, tensor in iter_tensors(self.base)}
        matrices = (
            ('_proj.weight',) if shape.get('tie_word_embeddings') else ('_proj.weight', 'embed_tokens', 'lm_head')
        )
        self.linear = {k.removesuffix('.weight'): t for k, t in self.tensors.items() if any(m in k for m in matrices)}
        self.ids = 0

    @contextmanager
    def merged(self, adapter: Adapter):
        targets = self.plain.engine.executor.runner.model.targets()
        names = [f'{name}.weight' for name in adapter.modules]
        for name in names:
            targets[name].copy(adapter.modules[name.removesuffix('.weight')].merged(self.tensors[name]))
        yield self.plain
        for name in names:
            targets[name].copy(self.tensors[name])

    def load(self, folder) -> LoRARequest:
        self.ids += 1
        request = LoRARequest(f'a{self.ids}', self.ids, str(folder))
        self.adapted.engine.add_lora(request)
        return request


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    return [Pair(tmp_path_factory.mktemp('base') / 'm', seed, **shape) for seed, shape in enumerate(SHAPES)]


def random_adapter(draw, linear) -> Adapter:
    """A rank and a scaling for each of some of the layers."""
    names = draw(st.lists(st.sampled_from(sorted(linear)), min_size=1, max_size=len(linear), unique=True))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    ranks = st.sampled_from(draw(st.sampled_from([[1], [3, 8], [16], [9, 20, 24]])))
    modules = {}
    for name in names:
        (out, width), rank = linear[name].shape, draw(ranks)
        a, b = torch.randn(rank, width, generator=g), torch.randn(out, rank, generator=g)
        scaling = draw(st.sampled_from([0.5, 2.0, -1.0]))
        modules[name] = LoRAWeights(a * width**-0.5, b * 0.6 * rank**-0.5, scaling)
    return Adapter({'task_type': 'CAUSAL_LM'}, modules)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_answers_like_merged_models(pairs, tmp_path_factory, data):
    pair = data.draw(st.sampled_from(pairs))
    requests: list[LoRARequest | None] = [None]
    merged: list[Adapter] = [Adapter({})]
    for _ in range(data.draw(st.integers(1, 4))):
        folder = tmp_path_factory.mktemp('adapter')
        write_adapter(folder, random_adapter(data.draw, pair.linear))
        requests.append(pair.load(folder))
        merged.append(read_adapter(folder))
    prompts = random_prompts(10, seed=data.draw(st.integers(0, 99)), high=30)
    prompts[5:] = [prompts[0] + p[:9] for p in prompts[5:]]  # with a prefix in common
    kinds = data.draw(st.lists(st.integers(0, len(requests) - 1), min_size=10, max_size=10))
    mix = [requests[kind] for kind in kinds]
    before = pair.adapted.engine.stats()
    once = run(pair.adapted, prompts, greedy(12), mix)
    assert run(pair.adapted, prompts, greedy(12), mix) == once  # from the cache
    after = pair.adapted.engine.stats()
    assert after['prefix_hits'] > before['prefix_hits']
    for kind in set(kinds):
        of = [i for i, other in enumerate(kinds) if other == kind]
        with pair.merged(merged[kind]) as plain:
            assert run(plain, [prompts[i] for i in of], greedy(12)) == [once[i] for i in of]
    for request in requests[1:]:
        assert pair.adapted.engine.remove_lora(request.lora_int_id)
    assert pair.adapted.engine.stats()['adapter_pages_used'] == 0


@pytest.mark.filterwarnings('ignore:.*save_embedding_layers', 'ignore:Model has .tie_word_embeddings')
@pytest.mark.parametrize('tied', [True, False])
def test_embedding_and_output_layer(tied, tmp_path):
    """As peft computes them beside the base; with the prompt's log probabilities, and at the side of other adapters."""
    base = tiny_model(tmp_path / 'base', 'qwen2', tie_word_embeddings=tied, num_hidden_layers=1)
    targets = (['embed_tokens'], ['lm_head'], ['embed_tokens', 'lm_head', 'q_proj', 'down_proj'], ['v_proj'])
    folders = [tiny_adapter(tmp_path / str(i), base, i, 3 + i, list(t)) for i, t in enumerate(targets)]
    loras = [None, *(LoRARequest(f.name, i, str(f)) for i, f in enumerate(folders, 1))]
    references = []
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        references.append(PeftModel.from_pretrained(model, folder))
    references.insert(0, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    prompts = random_prompts(10, seed=3, low=3, high=20)
    llm = make_llm(base, enable_lora=True, max_loras=2, max_lora_rank=8, num_gpu_blocks_override=24, max_model_len=64)
    outs = llm.generate(
        [{'prompt_token_ids': p} for p in prompts],
        [greedy(10, prompt_logprobs=0) if i % 2 else greedy(10) for i in range(10)],
        use_tqdm=False,
        lora_request=[loras[i % 5] for i in range(10)],
    )
    for i, out in enumerate(outs):
        tokens = out.outputs[0].token_ids
        logits = references[i % 5](torch.tensor([prompts[i] + tokens])).logits[0].float()
        at = logits[len(prompts[i]) - 1 : -1]
        assert (at.max(-1).values - at[torch.arange(10), torch.tensor(tokens)] <= 1e-4).all()
        if i % 2:
            known = torch.log_softmax(logits, -1)
            for position, found in enumerate(out.prompt_logprobs[1:]):
                token = prompts[i][position + 1]
                assert found[token].logprob == pytest.approx(known[position, token].item(), abs=2e-4)
    assert len({tuple(run(llm, [prompts[0]], greedy(10), lora)[0]) for lora in loras}) == 5
    for lora in loras[1:]:
        llm.engine.remove_lora(lora.lora_int_id)
    assert not llm.engine.executor.runner.lora._vocab


def test_such_mixes_do_preempt_and_read_again(pairs, tmp_path):
    """Otherwise the one above would prove less than it says."""
    pair = pairs[0]
    requests = []
    for i in range(4):
        weights = LoRAWeights(torch.ones(24, 64) * 0.1, torch.ones(64, 24) * 0.1, 1.0)
        write_adapter(tmp_path / str(i), Adapter({}, {'model.layers.0.self_attn.q_proj': weights}))
        requests.append(pair.load(tmp_path / str(i)))
    before = pair.adapted.engine.stats()
    run(pair.adapted, random_prompts(12, low=20, high=30), greedy(30), requests * 3)
    after = pair.adapted.engine.stats()
    assert after['num_preemptions'] > before['num_preemptions']
    assert after['adapter_reads'] > before['adapter_reads']
    assert after['adapters_in_memory'] <= 2
    for request in requests:
        pair.adapted.engine.remove_lora(request.lora_int_id)
