"""LLM: prompts, lists, refusals; one sentence each, nothing left behind."""

import pytest

from swiftlite import LLM, LoRARequest, SamplingParams
from swiftlite.engine import RequestError
from swiftlite.errors import SwiftliteError
from tests.engine.runs import greedy, make_llm, random_prompts
from tests.tiny import tiny_adapter, tiny_qwen2


@pytest.fixture(scope='module')
def llm(base):
    return make_llm(base, enable_lora=True)


def test_every_way_to_give_a_prompt(llm):
    ids = random_prompts(1)[0]
    one = llm.generate({'prompt_token_ids': ids}, greedy(), use_tqdm=False)
    assert [
        o.outputs[0].token_ids for o in llm.generate([ids, {'prompt_token_ids': ids}], greedy(), use_tqdm=False)
    ] == [one[0].outputs[0].token_ids] * 2
    assert llm.generate(ids, greedy(), use_tqdm=False)[0].outputs[0].token_ids == one[0].outputs[0].token_ids
    assert one[0].finished and one[0].prompt_token_ids == ids


def test_one_parameter_each(llm):
    prompts = random_prompts(3)
    outs = llm.generate(prompts, [greedy(1), greedy(2), greedy(3)], use_tqdm=False)
    assert [len(o.outputs[0].token_ids) for o in outs] == [1, 2, 3]
    with pytest.raises(RequestError, match='2 entries for 3 prompts'):
        llm.generate(prompts, [greedy(1)] * 2, use_tqdm=False)


@pytest.mark.parametrize(
    ('prompt', 'says'),
    [
        ('text', 'skip_tokenizer_init'),
        ([[]], 'a prompt is'),
        ({'prompt_token_ids': []}, 'got an empty list'),
        (None, 'a prompt is'),
        (b'x', 'a prompt is'),
        ({'promt': 'a'}, "did you mean 'prompt'"),
        ({'prompt_token_ids': [1], 'multi_modal_data': {'image': 1}}, "got 'multi_modal_data'"),
        ({'prompt_token_ids': 'x'}, 'prompt_token_ids must be a non-empty list'),
        ({'prompt': None}, 'got neither'),
    ],
)
def test_bad_prompts(llm, prompt, says):
    with pytest.raises(RequestError, match=says):
        llm.generate(prompt, greedy(), use_tqdm=False)


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ({'sampling_params': {'temperature': 0}}, 'sampling_params must be SamplingParams, got dict'),
        ({'lora_request': 'tone'}, 'lora_request must be a LoRARequest or None, got str'),
    ],
)
def test_bad_arguments(llm, arguments, says):
    with pytest.raises(RequestError, match=says):
        llm.generate([1, 2], **({'use_tqdm': False} | arguments))


def test_an_id_stands_for_one_adapter(adapters, llm):
    a, b = (LoRARequest(name, 60, str(adapters[i])) for i, name in enumerate('ab'))
    llm.generate([1, 2, 3], greedy(2), use_tqdm=False, lora_request=a)
    with pytest.raises(RequestError, match=r'id 60 stands for .*give .* another id'):
        llm.generate([1, 2, 3], greedy(2), use_tqdm=False, lora_request=b)
    with pytest.raises(RequestError, match='positive integer, got 0'):
        LoRARequest('a', 0, 'x')


def test_a_bad_prompt_in_a_batch_leaves_nothing_running(llm):
    with pytest.raises(RequestError, match='300 tokens'):
        llm.generate([[1, 2, 3], [5] * 300], greedy(), use_tqdm=False)
    assert not llm.engine.has_work and llm.engine.stats()['blocks_used'] == 0


def test_unknown_options_name_the_nearest(base):
    with pytest.raises(SwiftliteError, match=r'max_modellen.*max_model_len'):
        LLM(model=str(base), max_modellen=5)
    with pytest.raises(SwiftliteError, match=r"dtype 'bfloat61'.*bfloat16"):
        LLM(model=str(base), dtype='bfloat61')
    with pytest.raises(SwiftliteError, match='max_num_seqs must be an integer of at least 1'):
        LLM(model=str(base), max_num_seqs=0)


def test_adapters_that_do_not_fit(base, adapters, llm, tmp_path):
    wide = tiny_qwen2(tmp_path / 'wide', hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
    other = tiny_adapter(tmp_path / 'other', wide)
    for path, says in ((other, 'trained on another base'), (base, 'not a PEFT adapter'), ('/nowhere', 'not a folder')):
        with pytest.raises(SwiftliteError, match=says):
            llm.generate([1, 2, 3], greedy(), use_tqdm=False, lora_request=LoRARequest('x', 50, str(path)))
    with pytest.raises(SwiftliteError, match=r'rank 11.*max_lora_rank'):
        small = make_llm(base, enable_lora=True, max_loras=1, max_lora_rank=8)
        small.generate([1, 2, 3], greedy(), use_tqdm=False, lora_request=LoRARequest('b', 1, str(adapters[1])))
    with pytest.raises(SwiftliteError, match='enable_lora'):
        make_llm(base).generate([1, 2, 3], greedy(), use_tqdm=False, lora_request=LoRARequest('a', 1, str(adapters[0])))


def test_a_replaced_adapter_is_not_answered_from_the_old_ones_cache(base, adapters, llm):
    prompt = random_prompts(1, seed=20, low=50, high=50)[0]
    first, second = (LoRARequest('same', 77, str(adapters[i])) for i in (0, 1))
    old = llm.generate(prompt, greedy(), use_tqdm=False, lora_request=first)[0].outputs[0].token_ids
    llm.engine.add_lora(second)
    new = llm.generate(prompt, greedy(), use_tqdm=False, lora_request=second)[0]
    fresh = make_llm(base, enable_lora=True).generate(prompt, greedy(), use_tqdm=False, lora_request=second)[0]
    assert new.outputs[0].token_ids == fresh.outputs[0].token_ids != old
    assert new.num_cached_tokens == 0


def test_a_model_too_long_for_its_memory_says_what_would_fit(base):
    with pytest.raises(SwiftliteError, match='lower --max_model_len to at most 64'):
        make_llm(base, num_gpu_blocks_override=4)


def test_n_answers_of_one_prompt(llm):
    params = SamplingParams(n=3, temperature=1.0, seed=5, max_tokens=6, ignore_eos=True, detokenize=False)
    out = llm.generate([1, 2, 3], params, use_tqdm=False)[0]
    assert [o.index for o in out.outputs] == [0, 1, 2] and len({tuple(o.token_ids) for o in out.outputs}) == 3
    again = llm.generate([1, 2, 3], params, use_tqdm=False)[0]
    assert [o.token_ids for o in again.outputs] == [o.token_ids for o in out.outputs]


def test_without_parameters_the_checkpoints_own_hold(tmp_path):
    tiny_qwen2(tmp_path)
    (tmp_path / 'generation_config.json').write_text('{"temperature": 0.3, "top_k": 7, "eos_token_id": 1}')
    llm = make_llm(tmp_path)
    params = llm.get_default_sampling_params()
    assert (params.temperature, params.top_k, params.max_tokens) == (0.3, 7, 16)
    (tmp_path / 'generation_config.json').write_text('{"do_sample": false}')
    first = llm.generate([5, 6, 7], use_tqdm=False)[0].outputs[0].token_ids
    assert first == llm.generate([5, 6, 7], SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].token_ids
