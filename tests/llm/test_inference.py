"""ms-swift's functions in this process: the answers of every other way to run the model, in its shapes."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from swiftlite import LLM, SamplingParams
from swiftlite.args.infer import InferArgs
from swiftlite.errors import SwiftliteError
from swiftlite.infer.session import Session
from swiftlite.infer.setup import prepare
from swiftlite.llm import (
    GenerationConfig,
    LoRARequest,
    get_engine,
    get_template,
    get_vllm_engine,
    inference,
    inference_stream,
    inference_stream_vllm,
    inference_vllm,
)
from tests.llm.conftest import OPTIONS
from tests.served import tiny_chat_checkpoint
from tests.tiny import EXACT

REQUESTS = [
    {'query': 'who are you?'},
    {'query': '你是谁？', 'history': [['hi', 'Hello!']]},
    {
        'query': 'What is 12 + 30?',
        'history': [('hello', 'Hello!'), ('thanks', 'You are welcome.')],
        'system': 'Be brief.',
    },
]
MESSAGES = [
    [{'role': 'user', 'content': 'who are you?'}],
    [
        {'role': 'user', 'content': 'hi'},
        {'role': 'assistant', 'content': 'Hello!'},
        {'role': 'user', 'content': '你是谁？'},
    ],
    [
        {'role': 'system', 'content': 'Be brief.'},
        {'role': 'user', 'content': 'hello'},
        {'role': 'assistant', 'content': 'Hello!'},
        {'role': 'user', 'content': 'thanks'},
        {'role': 'assistant', 'content': 'You are welcome.'},
        {'role': 'user', 'content': 'What is 12 + 30?'},
    ],
]


def responses(results) -> list[str]:
    return [result['response'] for result in results]


@pytest.fixture(scope='module')
def answers(engine, template) -> list[str]:
    return responses(inference(engine, template, REQUESTS))


def test_a_batch_answers_as_one_by_one(engine, template, answers):
    assert 'tiny-chat' in answers[0] and '我是tiny-chat' in answers[1]
    assert [responses(inference(engine, template, [request]))[0] for request in REQUESTS] == answers


def test_the_answers_are_those_of_llm_chat_and_of_infer(answers):
    outs = LLM('tiny-chat', **EXACT).chat(MESSAGES, SamplingParams(temperature=0, max_tokens=512), use_tqdm=False)
    assert [out.outputs[0].text for out in outs] == answers
    args = InferArgs(model_type='tiny-chat', **EXACT)
    session = Session(prepare(args), args)
    texts = [''] * len(MESSAGES)
    for index, new in session.answer([session.encode(messages) for messages in MESSAGES]):
        texts[index] += new.text
    session.close()
    assert texts == answers


def test_a_stream_grows_to_the_answer(engine, template, answers):
    steps = list(inference_stream(engine, template, REQUESTS))
    assert len(steps) > 10 and responses(steps[-1]) == answers
    for before, after in itertools.pairwise(steps):
        assert all(b.startswith(a) for a, b in zip(responses(before), responses(after), strict=True))
        assert responses(before) != responses(after) or after is steps[-1]
    assert '\ufffd' not in ''.join(text for step in steps for text in responses(step))
    assert [step[0]['history'][-1] for step in steps] == [['who are you?', step[0]['response']] for step in steps]
    assert steps[-1] == inference(engine, template, REQUESTS)


def test_history_is_carried_on_and_requests_are_left_alone(engine, template):
    requests = copy.deepcopy(REQUESTS)
    first = inference(engine, template, requests)
    assert requests == REQUESTS
    assert [result['history'] for result in first] == [
        [*map(list, request.get('history', [])), [request['query'], result['response']]]
        for request, result in zip(REQUESTS, first, strict=True)
    ]
    (second,) = inference(engine, template, [{'query': 'hello', 'history': first[1]['history']}])
    assert second['history'][:2] == first[1]['history'] and len(second['history']) == 3
    assert inference(engine, template, []) == [] and list(inference_stream(engine, template, [])) == []


@pytest.mark.parametrize('stream', [False, True])
def test_generation_info_counts_tokens(engine, template, answers, stream):
    info: dict = {}
    if stream:
        *_, _last = inference_stream(engine, template, REQUESTS, generation_info=info)
    else:
        inference(engine, template, REQUESTS, generation_info=info)
    tokenizer = engine.hf_tokenizer
    assert info['num_prompt_tokens'] == sum(len(template.encode(messages)) for messages in MESSAGES)
    ends = len(answers)  # one end token each
    assert info['num_generated_tokens'] == ends + sum(len(tokenizer.encode(text)) for text in answers)
    assert info['num_samples'] == 3 and info['runtime'] > 0
    assert info['samples/s'] == pytest.approx(3 / info['runtime'])
    assert info['tokens/s'] == pytest.approx(info['num_generated_tokens'] / info['runtime'])


def test_streams_and_calls_side_by_side(engine, template, answers):
    one = inference_stream(engine, template, REQUESTS[:1])
    next(one)
    two = inference_stream(engine, template, REQUESTS[1:])
    next(two)
    assert responses(inference(engine, template, REQUESTS)) == answers
    *_, last_two = two
    *_, last_one = one
    assert responses(last_one + last_two) == answers
    left = inference_stream(engine, template, REQUESTS)
    next(left)
    left.close()
    assert not engine.engine.has_work and engine.engine.stats()['blocks_used'] == 0


def test_an_adapter_for_all_or_for_each(engine, template, answers, adapter):
    tone = LoRARequest('tone', 1, str(adapter))
    config = GenerationConfig(max_new_tokens=12, temperature=0)
    base = responses(inference(engine, template, REQUESTS, generation_config=config))
    tuned = responses(inference(engine, template, REQUESTS, generation_config=config, lora_request=tone))
    assert all(a != b for a, b in zip(base, tuned, strict=True))
    mixed = inference(engine, template, REQUESTS, generation_config=config, lora_request=[tone, None, tone])
    assert responses(mixed) == [tuned[0], base[1], tuned[2]]
    *_, last = inference_stream(engine, template, REQUESTS, generation_config=config, lora_request=tone)
    assert responses(last) == tuned
    with pytest.raises(SwiftliteError, match='1 entries for 3 requests'):
        inference(engine, template, REQUESTS, lora_request=[tone])
    with pytest.raises(SwiftliteError, match='not a folder'):
        inference(engine, template, REQUESTS, lora_request=LoRARequest('gone', 9, '/nowhere'))
    assert not engine.engine.has_work


def test_generation_config_holds_until_it_is_changed(engine, template, answers):
    own = engine.generation_config
    assert (own.temperature, own.max_new_tokens) == (0.0, 512), "the checkpoint's"
    saved = replace(own)
    try:
        own.max_new_tokens = 3
        info: dict = {}
        cut = inference(engine, template, REQUESTS, generation_info=info)
        assert info['num_generated_tokens'] == 9 and answers[0].startswith(cut[0]['response'])
        own.max_new_tokens, own.stop = 512, ['made', 'assist']
        stopped = responses(inference(engine, template, REQUESTS[:1]))[0]
        assert stopped == answers[0][: answers[0].index('assist')]
        *_, last = inference_stream(engine, template, REQUESTS[:1])
        assert responses(last) == [stopped] and not engine.engine.has_work
        own.stop, own.temperature, own.seed, own.max_new_tokens = None, 3.0, 7, 24
        hot = responses(inference(engine, template, REQUESTS))
        assert hot != answers and responses(inference(engine, template, REQUESTS)) == hot
        own.top_k, own.max_new_tokens = 1, 512
        assert responses(inference(engine, template, REQUESTS)) == answers
        own.top_k, own.do_sample = -1, False
        assert responses(inference(engine, template, REQUESTS)) == answers
    finally:
        for name, value in vars(saved).items():
            setattr(own, name, value)
    with pytest.raises(AttributeError, match="no 'max_new_token'; did you mean 'max_new_tokens'"):
        own.max_new_token = 3
    for wrong, says in (
        ({'num_beams': 4}, 'beam search'),
        ({'top_p': 7}, 'top_p'),
        ({'max_new_tokens': 0}, 'max_tokens'),
    ):
        with pytest.raises(SwiftliteError, match=says):
            inference(engine, template, REQUESTS, generation_config=GenerationConfig(**wrong))
    with pytest.raises(SwiftliteError, match='generation_config must be'):
        inference(engine, template, REQUESTS, generation_config={'temperature': 0})


def test_an_answer_stays_within_the_context(template):
    engine = get_engine('tiny-chat', max_model_len=24, **OPTIONS)
    info: dict = {}
    config = GenerationConfig(max_new_tokens=None, temperature=0, ignore_eos=True)
    inference(engine, template, REQUESTS[:1], generation_config=config, generation_info=info)
    assert info['num_prompt_tokens'] + info['num_generated_tokens'] == 24
    with pytest.raises(SwiftliteError, match=r'request 2: it has 30\d tokens, but the model takes 24'):
        inference(engine, template, [REQUESTS[0], {'query': '你' * 300}])


def test_the_default_system_of_a_template(engine):
    plain = get_template('qwen', engine.hf_tokenizer)
    assert 'helpful assistant' in plain.render(MESSAGES[0])
    assert '<|im_start|>system' not in get_template('qwen', engine.hf_tokenizer, default_system='').render(MESSAGES[0])
    brief = get_template('qwen', engine.hf_tokenizer, default_system='Be brief.')
    assert 'Be brief.' in brief.render(MESSAGES[0])


def test_progress_and_verbose(engine, template, answers, capsys):
    inference(engine, template, REQUESTS[:1], use_tqdm=True, verbose=True, prompt_prefix='<P>', output_prefix='<O>')
    shown = capsys.readouterr()
    assert shown.out == f'<P>{template.render(MESSAGES[0])}<O>{answers[0]}\n'
    assert '1/1' in shown.err
    *_, last = inference_stream(engine, template, REQUESTS, use_tqdm=True)
    assert responses(last) == answers and '3/3' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('requests', 'says'),
    [
        ([{'query': 'hi', 'images': ['a.png']}], "request 1: 'images' cannot be answered"),
        ([{'query': 'hi'}, {'query': 'hi', 'histroy': []}], "request 2: .*'histroy'; did you mean 'history'"),
        ([{'history': []}], "needs a 'query'"),
        ([{'query': 5}], "'query' must be text, got int"),
        ([{'query': 'hi', 'history': 'hello'}], "'history' must be a list"),
        ([{'query': 'hi', 'history': [['a']]}], "entry 1 of 'history' is no"),
        ([{'query': 'hi', 'history': [['a', None]]}], 'must be two texts'),
        ([{'query': 'hi', 'system': 3}], "'system' must be text"),
        (['hi'], 'a request is'),
        ({'query': 'hi'}, 'must be a list of requests'),
        (None, 'must be a list of requests, got one NoneType'),
    ],
)
@pytest.mark.parametrize('function', [inference, inference_stream])
def test_wrong_requests_raise_at_the_call(engine, template, function, requests, says):
    with pytest.raises(SwiftliteError, match=says):
        function(engine, template, requests)
    assert not engine.engine.has_work


def test_an_empty_list_of_images_is_none(engine, template, answers):
    assert responses(inference(engine, template, [REQUESTS[0] | {'images': []}])) == answers[:1]


def test_names_of_ms_swift():
    assert (get_vllm_engine, inference_vllm, inference_stream_vllm) == (get_engine, inference, inference_stream)


def test_engines_of_a_folder_and_a_dtype(tmp_path: Path, caplog):
    folder = tiny_chat_checkpoint(tmp_path / 'model')
    engine = get_engine(
        None,
        torch.bfloat16,
        model_id_or_path=str(folder),
        max_model_len=64,
        num_gpu_blocks_override=64,
        swap_space=4,
        engine_kwargs={'trust_remote_code': True},
    )
    assert engine.engine.model_config.dtype == torch.bfloat16 and engine.max_model_len == 64
    assert engine.model_type is None and engine.model_dir == str(folder)
    assert engine.generation_config.max_new_tokens == 2048
    (notice,) = [record.getMessage() for record in caplog.records if 'change nothing' in record.getMessage()]
    assert 'swap_space' in notice and 'trust_remote_code' in notice
    for options, says in (
        ({'max_modellen': 5}, "no option 'max_modellen'; did you mean 'max_model_len'"),
        ({'pipeline_parallel_size': 2}, "pipeline_parallel_size is 2, but can only be '1' here"),
        ({'max_model_len': 8, 'engine_kwargs': {'max_model_len': 9}}, 'given twice'),
    ):
        with pytest.raises(SwiftliteError, match=says):
            get_engine(model_id_or_path=str(folder), **options)
    with pytest.raises(SwiftliteError, match="unknown model type 'tiny-chatt'; did you mean 'tiny-chat'"):
        get_engine('tiny-chatt')


def test_a_base_model_continues_a_text(engine):
    generation = get_template('default-generation', engine.hf_tokenizer)
    config = GenerationConfig(max_new_tokens=24, temperature=0)
    (result,) = inference(engine, generation, [{'query': 'I am tiny'}], generation_config=config)
    out = LLM('tiny-chat', **EXACT).generate('I am tiny', SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
    assert result['response'] == out[0].outputs[0].text
    with pytest.raises(SwiftliteError, match=r'request 1: .*completion model'):
        inference(engine, generation, [{'query': 'I am', 'history': [['a', 'b']]}])
