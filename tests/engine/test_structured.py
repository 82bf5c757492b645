"""Structured output on tiny-chat: every answer fits, ends where it is complete, and disturbs nobody."""

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from swiftlite import LLM, AsyncEngine, EngineConfig, SamplingParams
from swiftlite.engine import EngineRequest, RequestError, StructuredOutputsParams
from swiftlite.engine.grammar.compiler import GrammarCompiler, Vocabulary, compile_grammar, tokenizer_source
from swiftlite.engine.grammar.constraint import Constraint
from swiftlite.engine.grammar.guard import GrammarGuard
from swiftlite.errors import SwiftliteError
from tests.engine.late import hold_results_back
from tests.engine.schemas import fits, schemas

PERSON = {
    'type': 'object',
    'properties': {
        'name': {'type': 'string', 'minLength': 1, 'maxLength': 12},
        'age': {'type': 'integer', 'minimum': 0, 'maximum': 120},
        'tags': {'type': 'array', 'items': {'enum': ['red', 'blue', '绿']}, 'maxItems': 3},
    },
    'required': ['name', 'age', 'tags'],
    'additionalProperties': False,
}
SHAPES = [
    {'json': PERSON},
    {'json': PERSON, 'whitespace_pattern': r'[ \n]?'},
    {'json': PERSON, 'disable_any_whitespace': True},
    {'regex': r'[0-9]{4}-[0-9]{2}(-[0-9]{2})?'},
    {'choice': ['yes', 'no', 'maybe "so"\n', '也许']},
    {'grammar': 'start: item ("," item){1,3}\nitem: /[a-z]{2,5}/ "=" NUMBER\nNUMBER: /[0-9]{1,3}/'},
]
QUESTIONS = ['hello', 'who are you?', '你是谁？', 'What is 12 + 30?', 'Tell me about a person.']


EXACT = {'dtype': 'float32', 'num_gpu_blocks_override': 2048}  # the same tokens on every device, several engines on one


@pytest.fixture(scope='module')
def llm():
    return LLM('tiny-chat', **EXACT)


def params(shape, **values):
    settings = {'temperature': 0, 'max_tokens': 160, 'structured_outputs': shape} | values
    return SamplingParams(**settings)


def chat(llm, questions, sampling):
    outs = llm.chat([[{'role': 'user', 'content': q}] for q in questions], sampling, use_tqdm=False)
    assert llm.engine.stats()['blocks_used'] == 0 and not llm.engine.has_work
    return [o.outputs[0] for o in outs]


def good(shape, text):
    if 'json' in shape:
        return fits(json.loads(text), shape['json'])
    if 'regex' in shape:
        return re.fullmatch(shape['regex'], text) is not None
    if 'choice' in shape:
        return text in shape['choice']
    return re.fullmatch(r'[a-z]{2,5}=[0-9]{1,3}(,[a-z]{2,5}=[0-9]{1,3}){1,3}', text) is not None


def a_hundred():
    """100 requests: every shape, greedy and drawn, with penalties and filters."""
    ways = [
        {},
        {'temperature': 0.7},
        {'temperature': 1.5, 'top_p': 0.9},
        {'temperature': 1.0, 'presence_penalty': 1.0, 'top_k': 50},
        {'temperature': 1.0, 'repetition_penalty': 1.3, 'min_p': 0.01},
    ]
    shapes = [SHAPES[i % 2 * 3 if i % 3 == 0 else i % len(SHAPES)] for i in range(100)]
    sampling = [params(shape, seed=i, **ways[i % 5]) for i, shape in enumerate(shapes)]
    return [QUESTIONS[i % 5] for i in range(100)], shapes, sampling


@pytest.fixture(scope='module')
def hundred(llm):
    questions, _, sampling = a_hundred()
    return chat(llm, questions, sampling)


def test_a_hundred_answers_fit(llm, hundred):
    for shape, answer in zip(a_hundred()[1], hundred, strict=True):
        assert good(shape, answer.text), answer.text
        assert (answer.finish_reason, answer.stop_reason) == ('stop', None)
    assert len({answer.text for answer in hundred}) > 60


def test_batched_is_alone_and_cached_is_not_cached(llm, hundred):
    questions, _, sampling = a_hundred()
    for i in range(0, 100, 9):
        assert chat(llm, [questions[i]], sampling[i])[0].token_ids == hundred[i].token_ids


def test_an_answer_that_its_grammar_ends_tells_what_was_cached(llm):
    question = [{'role': 'user', 'content': 'hello there, my friend ' * 8}]
    for extra in ({}, {'logprobs': 0}):
        outs = [llm.chat([question], params({'choice': ['yes', 'no']}, **extra), use_tqdm=False)[0] for _ in range(2)]
        assert outs[1].num_cached_tokens == (len(outs[1].prompt_token_ids) - 1) // 16 * 16 > 0


@pytest.mark.parametrize(
    'options',
    [
        {'lookahead': 1},
        {'max_num_batched_tokens': 16, 'max_num_seqs': 7},
        {'num_gpu_blocks_override': 24, 'max_model_len': 200},
    ],
)
def test_how_it_is_computed_changes_nothing(hundred, options):
    llm = LLM('tiny-chat', **(EXACT | options))
    if 'lookahead' in options:
        hold_results_back(llm.engine)
    questions, _, sampling = a_hundred()
    answers = chat(llm, questions[:30], sampling[:30])
    assert [a.token_ids for a in answers] == [a.token_ids for a in hundred[:30]]
    assert ('num_gpu_blocks_override' in options) == (llm.engine.stats()['num_preemptions'] > 0)


def test_two_ranks_are_one(hundred):
    llm = LLM('tiny-chat', tensor_parallel_size=2, device='cpu', **EXACT)
    try:
        questions, _, sampling = a_hundred()
        mixed = [s.clone(prompt_logprobs=1) for s in sampling[:12]]
        answers = chat(llm, questions[:12], mixed)
        assert [a.token_ids for a in answers] == [a.token_ids for a in hundred[:12]]
    finally:
        llm.shutdown()


def test_others_run_as_if_alone_and_are_not_held_up():
    """A sequence with a grammar waits for its token; one without is in every step."""
    llm = LLM('tiny-chat', lookahead=1, **EXACT)
    hold_results_back(llm.engine)
    plain = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    alone = chat(llm, ['hello'], plain)[0].token_ids
    rows = []
    submit = llm.engine.executor.submit
    llm.engine.executor.submit = lambda plan: rows.append(len(plan.slots)) or submit(plan)
    answers = chat(llm, ['hello', 'who are you?'], [plain, params({'regex': '[ab]{40}'})])
    assert answers[0].token_ids == alone and re.fullmatch('[ab]{40}', answers[1].text)
    together = 30 + 1
    assert all(n in (1, 2) for n in rows) and rows[:together].count(1) >= together // 2
    assert len(rows) <= 2 * len(answers[1].token_ids) + 2


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas)
def test_any_schema(llm, schema):
    sampling = [params({'json': schema}, max_tokens=400, temperature=t, seed=1) for t in (0, 1.0)]
    for answer in chat(llm, QUESTIONS[:2], sampling):
        assert answer.finish_reason == 'stop'
        assert fits(json.loads(answer.text), schema), (schema, answer.text)


def test_json_is_written_like_json_dumps(llm):
    schema = {
        'type': 'object',
        'properties': {'a': {'const': 1}, 'b': {'const': [2, {'c': 3}]}},
        'required': ['a', 'b'],
    }
    schema['additionalProperties'] = False
    texts = [
        chat(llm, ['hello'], params({'json': given} | rest))[0].text
        for given, rest in ((schema, {}), (json.dumps(schema), {'disable_any_whitespace': True}))
    ]
    value = {'a': 1, 'b': [2, {'c': 3}]}
    assert texts == [json.dumps(value), json.dumps(value, separators=(',', ':'))]
    answer = chat(llm, ['hello'], params({'json_object': True}, max_tokens=60))[0]
    assert answer.finish_reason == 'length' or isinstance(json.loads(answer.text), dict)
    open_schema = {'type': 'object', 'properties': {'a': {'type': 'object'}}}
    closed = params({'json': open_schema, 'disable_additional_properties': True}, temperature=2.0, n=1, seed=4)
    assert chat(llm, ['hello'], closed)[0].text in ('{}', '{"a": {}}')


def test_the_end_comes_where_the_grammar_accepts(llm):
    end = llm.tokenizer.eos_token_id
    for length in (0, 1, 5):
        answer = chat(llm, ['hello'], params({'regex': 'a*'}, min_tokens=length, logit_bias={end: 100}))[0]
        assert (answer.text, answer.finish_reason) == ('a' * len(answer.text), 'stop')
        assert len(answer.token_ids) == length + 1 and answer.token_ids[-1] == end
    endless = chat(llm, ['hello'], params({'regex': 'a*'}, ignore_eos=True, max_tokens=20))[0]
    assert (endless.finish_reason, set(endless.text), len(endless.token_ids)) == ('length', {'a'}, 20)
    # a complete answer ends without an end token, whatever else is asked for
    for more in ({}, {'min_tokens': 100}, {'ignore_eos': True}, {'max_tokens': len(llm.tokenizer.encode('a1b'))}):
        answer = chat(llm, ['hello'], params({'choice': ['a1b']}, **more))[0]
        assert (answer.text, answer.finish_reason) == ('a1b', 'stop') and end not in answer.token_ids


def test_with_other_ways_to_forbid_tokens(llm):
    ids = {text: llm.tokenizer.encode(text)[0] for text in '01289'}
    digits = params({'regex': '[0-9]{3}'}, allowed_token_ids=list(ids.values()))
    assert set(chat(llm, ['hello'], digits)[0].text) <= set('01289')
    shape = {'choice': ['yes', 'no']}
    first = chat(llm, ['hello'], params(shape))[0]
    other = chat(llm, ['hello'], params(shape, logit_bias={first.token_ids[0]: -1000}))[0]
    assert {first.text, other.text} == {'yes', 'no'}
    assert chat(llm, ['hello'], params(shape, bad_words=[first.text[0]]))[0].text in ('yes', 'no')
    one = chat(llm, ['hello'], params(shape, logprobs=1, stop=['e']))[0]
    assert one.logprobs and (one.text == 'y') == (one.finish_reason == 'stop' and one.stop_reason == 'e')


def test_dead_ends_are_ends(llm):
    letters = [llm.tokenizer.encode(text)[0] for text in 'ab']
    stuck = params({'regex': '[ab]{2}c'}, allowed_token_ids=letters)
    answers = chat(llm, ['hello', 'hello'], [stuck, params({'choice': ['fine']})])
    assert answers[0].finish_reason == 'error' and re.fullmatch('[ab]{2}', answers[0].text)
    assert 'leave no token' in answers[0].stop_reason and answers[1].text == 'fine'
    with pytest.raises(RequestError, match='choice cannot be used: the other sampling parameters leave no token'):
        chat(llm, ['hello'], params({'choice': ['yes']}, allowed_token_ids=[llm.tokenizer.eos_token_id]))


LINKS = {
    i: [{'$ref': f'#/$defs/d{(i + 1) % 800}'}, {'$ref': f'#/$defs/d{i * 7 % 800}'}, {'type': 'null'}]
    for i in range(800)
}
DEFS = {f'd{i}': {'type': 'array', 'items': {'anyOf': links}} for i, links in LINKS.items()}
RULES = 'start: r0\n' + '\n'.join(f'r{i}: "a" r{i + 1} | "b" r{i * 7 % 4000}' for i in range(4000)) + '\nr4000: "c"'
BAD = [
    ({'regex': '[a'}, 'unclosed character class'),
    ({'regex': '(?=a)b'}, 'look-around'),
    ({'regex': 'a{0}'}, 'no text of at least one character'),
    ({'regex': r'[^\x00-\x{10FFFF}]'}, 'no text fits'),
    ({'regex': '\ud800'}, 'surrogates'),
    ({'json': {'type': 'objekt'}}, 'Invalid type: objekt'),
    ({'json': {'type': 'string', 'pattern': '['}}, 'unclosed character class'),
    ({'json': {'minimum': 5, 'maximum': 1, 'type': 'integer'}}, 'minimum'),
    ({'json': {'$ref': '#/nowhere'}}, 'nowhere'),
    ({'json': {'not': {}}}, 'not'),
    ({'json': {'enum': []}}, 'Unsatisfiable'),
    ({'json': {'$ref': '#'}}, 'no text fits'),
    ({'json': {'items': None}}, 'json'),
    ({'json': {'type': 'object'}, 'whitespace_pattern': '['}, 'unclosed'),
    ({'grammar': 'start: nothing'}, 'unknown name'),
    ({'grammar': 'begin: "a"'}, 'no start rule'),
    ({'grammar': 'start: "a'}, 'lexer error'),
    ({'grammar': 'start: start'}, 'no text fits'),
    ({'grammar': 'start: <|nope|>'}, 'unknown special token'),
    ({'grammar': 'start: %json {"type": "x"}'}, 'Invalid type'),
    # too much for the compiler: these overflow the stack, eat memory or take minutes where nothing stops them
    ({'json': {'$defs': DEFS, '$ref': '#/$defs/d0'}}, 'too complex to compile'),
    ({'grammar': RULES}, 'too complex to compile'),
    ({'grammar': 'start: "a" start'}, 'Too many items'),
]


@pytest.mark.parametrize(('shape', 'says'), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_grammars_are_one_sentence(llm, shape, says):
    for check in (
        lambda: compile_grammar(StructuredOutputsParams(**shape), llm.tokenizer),
        lambda: chat(llm, ['hello'], params(shape)),
    ):
        with pytest.raises(RequestError, match=re.escape(says)) as caught:
            check()
        assert '\n' not in str(caught.value) and str(caught.value).startswith(f'{next(iter(shape))} cannot be used: ')


EBNF = """
root ::= select_statement
select_statement ::= "SELECT " column " from " table " where " column "= " number
column ::= "col_1 " | "col_2 "
table ::= "table_1 " | "table_2 "
number ::= "1 " | "2 "
"""


def test_a_grammar_in_ebnf(llm):
    params = SamplingParams(temperature=0, max_tokens=60, structured_outputs=StructuredOutputsParams(grammar=EBNF))
    (out,) = llm.chat([{'role': 'user', 'content': 'Show col_1 of table_1.'}], params, use_tqdm=False)
    text = out.outputs[0].text
    assert re.fullmatch(r'SELECT col_[12]  from table_[12]  where col_[12] = [12] ', text), text


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({}, 'exactly one of .* got none'),
        ({'regex': 'a', 'choice': ['b']}, 'got regex and choice'),
        ({'json': '{"a": '}, 'no valid JSON'),
        ({'json': '[1]'}, 'an object'),
        ({'json': False}, 'an object'),
        ({'json': {'const': float('nan')}}, 'no JSON'),
        ({'regex': ''}, 'non-empty text'),
        ({'regex': 5}, 'non-empty text, got 5'),
        ({'choice': []}, 'non-empty texts'),
        ({'choice': ['a', '']}, 'non-empty texts'),
        ({'choice': 'yes'}, 'non-empty texts'),
        ({'json_object': 'yes'}, 'true or false'),
        ({'regex': 'a' * 300_000}, '300000 characters; the most is'),
        ({'json': '{"not":' * 100 + '{}' + '}' * 100}, 'nested too deeply; the most is 64 levels'),
        ({'json': '[' * 100_000}, 'nested too deeply'),
        ({'choice': [str(i) for i in range(5000)]}, '5000 texts; the most is'),
        ({'json_object': True, 'whitespace_pattern': 'a' * 300}, 'the most is 256'),
        ({'json_object': True, 'whitespace_pattern': ' ', 'disable_any_whitespace': True}, 'exclude each other'),
        ({'regx': 'a'}, "no field 'regx'; did you mean 'regex'"),
        ({'structural_tag': '{}'}, 'structural_tag is not supported'),
    ],
)
def test_bad_fields_are_one_sentence(fields, says):
    with pytest.raises(RequestError, match=says):
        SamplingParams(structured_outputs=fields)


def test_older_names_are_the_same(base):
    from swiftlite.engine import GuidedDecodingParams

    assert SamplingParams(
        guided_decoding=GuidedDecodingParams(regex='a')
    ).structured_outputs == StructuredOutputsParams(regex='a')
    with pytest.raises(RequestError, match='are the same'):
        SamplingParams(guided_decoding={'regex': 'a'}, structured_outputs={'regex': 'a'})
    with pytest.raises(RequestError, match='skip_tokenizer_init'):
        LLM('tiny-chat', skip_tokenizer_init=True, **EXACT).generate(
            [5], params({'regex': 'a'}, detokenize=False), use_tqdm=False
        )


def test_compiling_stops_nobody(llm):
    """Requests arrive as in the engine process, uncompiled: good and bad ones and one that leaves; the others go on."""
    engine = llm.engine
    prompt = llm.template.encode([{'role': 'user', 'content': 'hello'}])
    shapes = {
        'plain': None,
        'good': {'regex': 'a{3}b{7}'},
        'bad': {'regex': '(oops'},
        'gone': {'regex': '[a-f]{9}'},
        'endless': {'grammar': 'start: "b" start'},
    }
    outputs = {name: [] for name in shapes}
    for name, shape in shapes.items():
        engine.add_request(EngineRequest(name, prompt, params(shape, max_tokens=24, ignore_eos=shape is None)))
    assert engine.stats()['num_waiting'] == 5
    with pytest.raises(RequestError, match='already running'):
        engine.add_request(EngineRequest('good', prompt, params(shapes['good'])))
    for out in engine.step():
        outputs[out.request_id].append(out)
    assert engine.abort('gone')
    began = time.monotonic()
    while engine.has_work:
        assert time.monotonic() - began < 60
        for out in engine.step():
            outputs[out.request_id].append(out)
    assert len(outputs['plain']) == 24 and outputs['gone'] == []
    assert llm.tokenizer.decode([t for o in outputs['good'] for t in o.token_ids]) == 'aaabbbbbbb'
    assert [(o.finish_reason, o.token_ids) for o in outputs['bad']] == [('error', [])]
    assert 'unclosed group' in outputs['bad'][0].error
    assert outputs['endless'][-1].finish_reason == 'error' and 'too many items' in outputs['endless'][-1].error.lower()
    assert engine._sequences == {} and engine.stats()['blocks_used'] == 0


def test_a_compiler_that_ends_is_started_again(llm):
    guard = GrammarGuard(lambda: tokenizer_source(llm.tokenizer), seconds=0.5)
    slow = StructuredOutputsParams(json={'type': 'integer', 'multipleOf': 999983})
    with pytest.raises(RequestError, match='json cannot be used: it is too complex to compile'):
        guard.check(slow)
    guard.check(StructuredOutputsParams(choice=['a', 'b']))
    process = guard._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    guard.check(StructuredOutputsParams(regex='a+'))  # one that died by itself says nothing about the next grammar
    assert guard._process.pid != process.pid
    guard.close()


def test_a_closed_compiler_ends_at_once(llm):
    guard = GrammarGuard(lambda: tokenizer_source(llm.tokenizer), seconds=60)
    guard.check(StructuredOutputsParams(choice=['a', 'b']))
    process = guard._process
    slow = StructuredOutputsParams(json={'type': 'integer', 'multipleOf': 999983})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(guard.check, slow)
        while not guard._lock.locked():
            time.sleep(0.01)
        guard.close()
        assert process.poll() is not None and guard._process is None
        with pytest.raises(RequestError):
            running.result(timeout=30)
    with pytest.raises(RequestError, match='shut down'):
        guard.check(StructuredOutputsParams(choice=['a', 'b']))
    assert guard._process is None


def test_a_compiler_that_cannot_start_is_not_the_grammars_fault(llm, monkeypatch):
    tokens = tokenizer_source(llm.tokenizer)
    shape = StructuredOutputsParams(choice=['a', 'b'])
    with pytest.raises(RequestError, match='does not read this tokenizer'):
        GrammarGuard(lambda: ('{}', [])).check(shape)
    compiler = GrammarCompiler(lambda: tokens)
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'executable', '/nowhere/python')
        with pytest.raises(SwiftliteError, match='did not start'):
            compiler.compile(shape)
    assert compiler.compile(shape).advance(llm.tokenizer.encode('a')[0])
    compiler.shutdown()


def test_what_is_known_waits_for_no_vocabulary(llm, monkeypatch):
    """The step loop asks `known` while another thread reads the vocabulary for the first grammar."""
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Vocabulary):
        def __init__(self, *args):
            reading.set()
            assert go_on.wait(60)
            super().__init__(*args)

    monkeypatch.setattr('swiftlite.engine.grammar.compiler.Vocabulary', Slow)
    compiler = GrammarCompiler(lambda: tokenizer_source(llm.tokenizer))
    first = compiler.submit(StructuredOutputsParams(choice=['a', 'b']))
    assert reading.wait(60)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(compiler.known, StructuredOutputsParams(choice=['c', 'd']))
        try:
            assert asked.result(timeout=30) is None
        finally:
            go_on.set()
    assert first.result(timeout=60) is not None
    compiler.shutdown()


@pytest.mark.parametrize('size', [1, 31, 32, 33, 320])
def test_a_free_constraint_allows_the_whole_vocabulary(llm, size):
    grammar = compile_grammar(StructuredOutputsParams(regex='(.|\n)*'), llm.tokenizer)
    constraint = Constraint(grammar, SamplingParams(), (), size)
    every = np.unpackbits(constraint.mask.view(np.uint8), bitorder='little')
    assert every[:size].all() and not every[size:].any()


def test_a_fault_of_the_compiler_ends_its_request_alone(llm, monkeypatch, capfd):
    def fault(params):
        raise TypeError('not today')

    engine = llm.engine
    monkeypatch.setattr(engine.intake._compiler, 'compile', fault)
    shape = {'regex': 'a{5}b{5}'}
    engine.add_request(EngineRequest('fault', [5], params(shape)))
    engine.add_request(EngineRequest('other', [5], SamplingParams(max_tokens=2, ignore_eos=True)))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert [o.error for o in outputs if o.error] == ['The grammar could not be compiled (TypeError: not today).']
    assert sum(len(o.token_ids) for o in outputs if o.request_id == 'other') == 2
    assert 'not today' in capfd.readouterr().err


async def test_through_the_engine_process():
    """Bad grammars end their requests, the others answer as before."""
    engine = await AsyncEngine.start(EngineConfig('tiny-chat', **EXACT))
    prompt = [8188, 872, 198, 3255, 8189, 198, 8188, 7065, 198]

    async def ask(name, shape, **values):
        text, last = '', None
        async for out in engine.generate(prompt, params(shape, **values), name):
            text, last = text + out.outputs[0].text, out
        return text, last.outputs[0].finish_reason, last.prompt_logprobs

    try:
        before = await ask('0', None, max_tokens=12)
        bad = [
            {'regex': '(oops'},
            {'json': {'$defs': DEFS, '$ref': '#/$defs/d0'}},
            {'grammar': 'start: ' + '(' * 20000},
        ]
        results = await asyncio.gather(
            *(ask(f'bad-{i}', shape) for i, shape in enumerate(bad)),
            *(ask(f'good-{i}', shape, bad_words=['zz']) for i, shape in enumerate(SHAPES)),
            ask('plain', None, max_tokens=12),
            return_exceptions=True,
        )
        assert all(isinstance(r, RequestError) for r in results[:3])
        for shape, (text, reason, _) in zip(SHAPES, results[3:-1], strict=True):
            assert good(shape, text) and reason == 'stop'
        assert results[-1] == before and engine.alive
        assert (await engine.stats())['blocks_used'] == 0
    finally:
        await engine.shutdown()
