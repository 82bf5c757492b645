"""Results that come late, some together: every answer is what it is alone on an engine whose results come at once."""

import asyncio
import random
import time

import pytest

from swiftlite import AsyncEngine, EngineConfig, LoRARequest, SamplingParams
from swiftlite.engine import BeamSearchParams, EngineRequest
from swiftlite.engine.adapters.host import AdapterFormat
from swiftlite.engine.output_processor import RequestState
from swiftlite.hub import local_path
from tests.engine.late import PlayedProcess, hold_results_back
from tests.engine.runs import make_llm, random_prompts
from tests.tiny import tiny_adapter, tiny_qwen2

VOCAB = 8192  # tiny-chat's tokens on a smaller model
LONGEST = 24
HEAD = random_prompts(1, seed=3, low=40, high=40, vocab=VOCAB)[0]
PROMPTS = random_prompts(5, seed=4, high=50, vocab=VOCAB) + [HEAD + p for p in random_prompts(3, high=6, vocab=VOCAB)]
WAYS = [
    {},
    {},
    {'temperature': 1.0},
    {'temperature': 0.8, 'top_p': 0.9, 'top_k': 50},
    {'temperature': 1.2, 'min_p': 0.05},
    {'repetition_penalty': 1.3, 'temperature': 0.7},
    {'presence_penalty': 1.0, 'frequency_penalty': 0.5},
    {'logprobs': 2},
    {'logprobs': 0, 'prompt_logprobs': 1, 'temperature': 1.0},
    {'prompt_logprobs': 0},
    {'stop': ['a', 'on']},
    {'stop': ['e'], 'include_stop_str_in_output': True, 'min_tokens': 4, 'logprobs': 0},
    {'stop_token_ids': list(range(0, VOCAB, 5))},
    {'stop_token_ids': list(range(0, VOCAB, 3)), 'min_tokens': 5, 'ignore_eos': False},
    {'structured_outputs': {'regex': '[ab]{3,9}'}},
    {'structured_outputs': {'choice': ['yes', 'no', 'maybe']}, 'logprobs': 1},
    {'structured_outputs': {'regex': '[0-9]{40}'}, 'temperature': 1.0},
    {'allowed_token_ids': list(range(300, 400)), 'logit_bias': {350: 2.0}},
    {'bad_words_token_ids': ((300,), (301, 302)), 'temperature': 1.0},
]
OPTIONS = {
    'room': {},
    'two steps ahead': {'lookahead': 2, 'max_num_seqs': 5},
    'few blocks': {'num_gpu_blocks_override': 9, 'max_model_len': 100},
    'short steps': {'max_num_batched_tokens': 9, 'block_size': 4, 'num_gpu_blocks_override': 60, 'max_model_len': 100},
    'no cache, few blocks': {'enable_prefix_caching': False, 'num_gpu_blocks_override': 9, 'max_model_len': 100},
    'few adapters': {'max_loras': 1, 'max_cpu_loras': 1, 'max_num_seqs': 3, 'max_num_batched_tokens': 40},
}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp('base'), vocab_size=VOCAB, eos_token_id=8189)


@pytest.fixture(scope='module')
def folders(model, tmp_path_factory):
    root = tmp_path_factory.mktemp('adapters')
    return [str(tiny_adapter(root / str(i), model, seed=i, rank=3 + 4 * i)) for i in range(3)]


def settings(**options):
    found = {
        'skip_tokenizer_init': False,
        'tokenizer': str(local_path('tiny-chat')),
        'dtype': 'float32',
        'enable_lora': True,
        'max_lora_rank': 16,
        'max_model_len': 128,
    }
    return found | options


def draw_params(draws):
    values = {'temperature': 0, 'max_tokens': draws.choice([1, 2, 7, 15, LONGEST]), 'ignore_eos': True}
    values |= draws.choice(WAYS)
    values['min_tokens'] = min(values.get('min_tokens', 0), values['max_tokens'])
    return SamplingParams(seed=draws.randrange(3), **values)


class Answer:
    """What came for a request."""

    def __init__(self, state):
        self.state = state
        self.tokens, self.logprobs, self.text = [], [], ''
        self.reason = self.prompt = self.cached = None

    def take(self, out):
        assert self.reason is None, 'something after the end'
        if self.cached is None:
            self.cached = out.num_cached_tokens
        delta = self.state.update(out)
        self.add(delta, self.state.prompt_logprobs())

    def add(self, delta, prompt):
        if prompt is not None:
            assert self.prompt is None
            self.prompt = numbers(prompt[1:])
        self.tokens += delta.token_ids
        self.text += delta.text
        self.logprobs += numbers(delta.logprobs or [])
        self.reason = (delta.finish_reason, delta.stop_reason) if delta.finish_reason else None

    def check(self, other):
        assert (self.tokens, self.text, self.reason) == (other.tokens, other.text, other.reason)
        assert self.logprobs == other.logprobs and self.prompt == other.prompt


def numbers(steps):
    """Log probabilities by token, as far as they are the same in every batch."""
    return [{i: pytest.approx(entry.logprob, abs=1e-3) for i, entry in step.items()} for step in steps]


@pytest.fixture(scope='module')
def alone(model):
    """What a request gets that runs alone, its results at once and nothing cached."""
    llm, known = make_llm(model, **settings(enable_prefix_caching=False)), {}

    def find(prompt, params, folder):
        key = tuple(prompt), repr(params), folder
        if key not in known:
            lora = LoRARequest(folder, 1 + int(folder[-1]), folder) if folder else None
            request = EngineRequest('r', prompt, params, lora)
            params.update_from_tokenizer(llm.tokenizer)
            answer = known[key] = Answer(RequestState(request, llm.tokenizer))
            llm.engine.add_request(request)
            while answer.reason is None:
                for out in llm.engine.step():
                    answer.take(out)
            llm.engine.abort('r')
        return known[key]

    return find


class Traffic:
    """Requests that come and go while adapters do, by a seed."""

    def __init__(self, llm, folders, alone, seed):
        self.engine, self.tokenizer, self.folders = llm.engine, llm.tokenizer, folders
        self.alone, self.draws = alone, random.Random(seed)
        self.running, self.wanted, self.over = {}, {}, {}
        self.loads, self.loaded = 0, []

    def call(self):
        chance, number = self.draws.random(), self.draws.randint(1, 4)
        if chance < 0.7:
            self.ask(number)
        elif chance < 0.82 and self.running:
            name = self.draws.choice(list(self.running))
            self.engine.abort(name)
            answer, expected = self.running.pop(name), self.wanted.pop(name)
            assert answer.tokens == expected.tokens[: len(answer.tokens)]
        elif chance < 0.95:
            self.loads += 1
            self.engine.load_lora(LoRARequest('x', number, self.draws.choice(self.folders)), self.loaded.append)
        else:
            self.engine.remove_lora(number)

    def ask(self, number):
        name, prompt, params, lora = str(len(self.over)), self.draws.choice(PROMPTS), draw_params(self.draws), None
        if self.draws.random() < 0.5:
            if number in self.engine.adapters:
                lora = LoRARequest('x', number, self.engine.adapters.get(number).request.lora_path)
            else:  # the request brings it
                lora = LoRARequest('x', number, self.draws.choice(self.folders))
        request = EngineRequest(name, prompt, params, lora)
        params.update_from_tokenizer(self.tokenizer)
        self.wanted[name] = self.alone(prompt, params, lora.lora_path if lora else None)
        self.engine.add_request(request)
        self.running[name], self.over[name] = Answer(RequestState(request, self.tokenizer)), False

    def step(self):
        for out in self.engine.step():
            assert not self.over[out.request_id], 'something after the end'
            self.over[out.request_id] = out.finish_reason is not None
            answer = self.running.get(out.request_id)
            if answer is None:
                continue
            answer.take(out)
            if answer.reason is not None:
                del self.running[out.request_id]
                if answer.state.stopped:
                    self.engine.abort(out.request_id)
                answer.check(self.wanted.pop(out.request_id))


def nothing_left(engine):
    """All that requests held is free again, and after them what adapters hold."""
    stats = engine.stats()
    assert (stats['blocks_used'], stats['num_running'], stats['num_waiting']) == (0, 0, 0)
    assert not engine._sequences and not engine.blocks._refs.count(1) and engine.scheduler.waiting.tokens == 0
    assert sorted(engine.scheduler._slots) == list(range(engine.model_config.max_num_seqs))
    for number in range(1, 5):
        engine.remove_lora(number)
    table, manager = engine.adapters, engine.executor.runner.lora
    assert len(table._free) == table.num_pages and not (table._by_uid or table._idle or table._closed)
    assert not (manager.reader.copies or manager._slots or engine.library._loading)
    assert engine.library.num_copies == engine.library._copies._bytes == 0


@pytest.fixture
def slow_reads(monkeypatch):
    read, wait = AdapterFormat.read, random.Random(1)

    def late(self, path):

        time.sleep(wait.random() * 0.003)
        return read(self, path)

    monkeypatch.setattr(AdapterFormat, 'read', late)


@pytest.mark.parametrize('kind', OPTIONS)
def test_any_traffic(model, folders, alone, slow_reads, kind, seed=0):
    llm = make_llm(model, **settings(**{'lookahead': 1} | OPTIONS[kind]))
    hold_results_back(llm.engine, seed)
    traffic = Traffic(llm, folders, alone, seed)
    for _ in range(60):
        traffic.call()
        for _ in range(traffic.draws.choice([0, 0, 1, 2, 4])):
            traffic.step()
    deadline = time.monotonic() + 120
    while llm.engine.has_work:
        assert time.monotonic() < deadline, llm.engine.stats()
        traffic.step()
    assert not traffic.running and len(traffic.loaded) == traffic.loads
    assert 'few blocks' not in kind or llm.engine.stats()['num_preemptions'] > 0
    nothing_left(llm.engine)


@pytest.mark.parametrize('kind', ['room', 'few blocks', 'few adapters'])
async def test_any_clients(model, folders, alone, slow_reads, kind, monkeypatch, seed=0):
    """The same through the loop of the engine process, its messages, and the server's end of them."""
    loras, draws = [LoRARequest(str(i), i, folder) for i, folder in enumerate(folders, 1)], random.Random(seed)
    jobs = []
    for _ in range(48):
        prompt, params, lora = draws.choice(PROMPTS), draw_params(draws), draws.choice([None, *loras])
        # two engines of one process take turns, so what is expected is known before
        expected = alone(prompt, params, lora.lora_path if lora else None)
        jobs.append((prompt, params, lora, draws.choice([None, None, 1, 3]), expected))
    process = PlayedProcess(monkeypatch, seed)
    engine = await AsyncEngine.start(
        EngineConfig(model=str(model), **settings(**{'lookahead': 1} | OPTIONS[kind])), process
    )

    async def client(name, prompt, params, lora, leaves, expected):
        answer, outputs = Answer(None), engine.generate(prompt, params, name, lora)
        async for out in outputs:
            assert answer.reason is None
            answer.add(out.outputs[0], out.prompt_logprobs)
            if leaves is not None and len(answer.tokens) >= leaves:
                await outputs.aclose()
                return
        answer.check(expected)

    async def clients(first):
        for job in jobs[first::6]:
            await client(str(first), *job)  # the same id again and again
            await asyncio.sleep(draws.random() * 0.01)

    await asyncio.wait_for(asyncio.gather(*map(clients, range(6))), 240)
    await engine.shutdown()
    assert process.status == 0
    nothing_left(process.engine)


def test_whole_calls(model):
    """Several answers, beams, and prompts that go on where an answer ended: the same, from the cache as well."""

    def calls(llm):
        prompts = [{'prompt_token_ids': p} for p in PROMPTS]
        for params in (
            SamplingParams(n=3, seed=1, max_tokens=9, logprobs=1, stop=['a']),
            SamplingParams(n=2, temperature=0.9, max_tokens=20, prompt_logprobs=0),  # the engine's own seeds
            SamplingParams(temperature=0, max_tokens=16, structured_outputs={'regex': '[a-d]{5,30}'}),
        ):
            for out in llm.generate(prompts, params, use_tqdm=False):
                ends = [(o.token_ids, o.text, o.finish_reason, o.stop_reason) for o in out.outputs]
                yield ends, numbers((out.prompt_logprobs or [])[1:]), [numbers(o.logprobs or []) for o in out.outputs]
        for out in llm.beam_search(prompts[:3], BeamSearchParams(beam_width=3, max_tokens=6)):
            yield [(beam.tokens, pytest.approx(beam.cum_logprob, abs=1e-3)) for beam in out.sequences]
        said = list(HEAD)
        for tokens in (1, 7, 16, 30):  # the whole talk each time
            params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
            out = llm.generate({'prompt_token_ids': said}, params, use_tqdm=False)[0]
            said = [*said, *out.outputs[0].token_ids, 5]
            yield out.num_cached_tokens, said

    expected = list(calls(make_llm(model, **settings())))
    late = make_llm(model, **settings(lookahead=1))
    hold_results_back(late.engine, seed=1)
    assert list(calls(late)) == expected
    assert late.engine.stats()['blocks_used'] == 0
