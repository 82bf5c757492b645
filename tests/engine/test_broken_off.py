"""A step that Ctrl-C or an error breaks off leaves nothing wrong behind, and the engine goes on."""

import pytest

from swiftlite import LoRARequest
from swiftlite.engine import EngineDeadError, EngineRequest
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts, run

PROMPTS = random_prompts(4, seed=6, low=40, high=60)
PLACES = {
    'before it': lambda runner: (runner.state, 'update'),
    'while adapters are copied': lambda runner: (runner.lora, '_load'),
    'in the network': lambda runner: (runner.model.layers[1], 'forward'),
    'in the last layer': lambda runner: (runner, '_logits'),
}


def break_off(where, name, after, error):
    """The call of this method after so many fails, once."""
    real, left = getattr(where, name), iter([None] * after)

    def called(*args, **kwargs):
        if next(left, error) is error:
            setattr(where, name, real)
            raise error
        return real(*args, **kwargs)

    setattr(where, name, called)


@pytest.fixture(scope='module')
def lora(adapters):
    return LoRARequest('a', 1, str(adapters[0]))


@pytest.fixture(scope='module')
def expected(base, lora):
    return run(make_llm(base, enable_lora=True), PROMPTS, lora=[None, lora] * 2)


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('after', [0, 3])
def test_the_next_call_answers_as_if_nothing_had_been(base, lora, expected, place, after):
    error = KeyboardInterrupt() if after else RuntimeError('out of memory')
    llm = make_llm(base, enable_lora=True, max_num_batched_tokens=64)
    where, name = PLACES[place](llm.engine.executor.runner)
    break_off(where, name, after if '_load' not in name else 0, error)
    with pytest.raises(type(error)):
        run(llm, PROMPTS, lora=[None, lora] * 2)
    assert llm.engine.stats()['blocks_used'] == 0
    assert run(llm, PROMPTS, lora=[None, lora] * 2) == expected


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('after', [1, 5])
def test_requests_that_stay_go_on(base, lora, expected, place, after):
    """Also where results of earlier steps are not known yet, and blocks are few."""
    engine = make_llm(base, enable_lora=True, lookahead=1, num_gpu_blocks_override=10, max_model_len=100).engine
    hold_results_back(engine, after)
    where, name = PLACES[place](engine.executor.runner)
    engine.add_lora(lora)
    break_off(where, name, after if '_load' not in name else 0, KeyboardInterrupt())
    found = {}
    for i, prompt in enumerate(PROMPTS):
        engine.add_request(EngineRequest(str(i), prompt, greedy(), lora if i % 2 else None))
        found[str(i)] = []
    broken = steps = 0
    while engine.has_work:
        assert (steps := steps + 1) < 1000
        try:
            for out in engine.step():
                found[out.request_id] += out.token_ids
        except KeyboardInterrupt:
            broken += 1
    assert broken == 1 and list(found.values()) == expected
    assert engine.stats()['blocks_used'] == 0


def test_ctrl_c_while_a_result_is_waited_for(base, expected):
    engine = make_llm(base, lookahead=1).engine
    hold_results_back(engine)
    engine.add_request(EngineRequest('r', PROMPTS[0], greedy()))
    found, steps = [], 0
    while engine.has_work:
        if (steps := steps + 1) == 6:
            break_off(engine._inflight[0][1], 'result', 0, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                engine.step()
        found += [token for out in engine.step() for token in out.token_ids]
    assert found == expected[0]


def test_ranks_that_no_longer_agree_answer_nothing(base):
    """Rank 1 runs the step that broke off on rank 0."""
    llm = make_llm(base, tensor_parallel_size=2, device='cpu')
    try:
        break_off(llm.engine.executor.runner.state, 'update', 0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(llm, PROMPTS)
        with pytest.raises(EngineDeadError, match='broke off on one rank'):
            run(llm, PROMPTS)
    finally:
        llm.shutdown()
