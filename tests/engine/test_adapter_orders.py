"""Adapters loaded, replaced and removed in any order while requests come, are preempted and go."""

import random
import time

import pytest

from swiftlite import LoRARequest
from swiftlite.engine import EngineRequest
from swiftlite.engine.adapters.host import AdapterFormat
from tests.engine.late import hold_results_back
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.tiny import tiny_adapter

pytestmark = pytest.mark.filterwarnings('ignore:.*save_embedding_layers', 'ignore:Model has .tie_word_embeddings')
PROMPTS = random_prompts(4, seed=4, high=40)
LONGEST = 30
SMALL = {  # few pages, copies, blocks and slots: everything has to wait for something
    'one adapter': {'max_loras': 1, 'max_cpu_loras': 1, 'num_gpu_blocks_override': 10, 'max_num_batched_tokens': 24},
    'steps ahead': {'max_loras': 1, 'max_cpu_loras': 2, 'num_gpu_blocks_override': 16, 'lookahead': 1},
    'few slots': {'max_loras': 2, 'max_cpu_loras': 3, 'num_gpu_blocks_override': 60, 'max_num_seqs': 2},
}


@pytest.fixture(scope='module')
def folders(base, adapters, tmp_path_factory):
    folder = tmp_path_factory.mktemp('vocab')
    return [*adapters, tiny_adapter(folder, base, seed=5, rank=8, targets=['q_proj', 'embed_tokens', 'lm_head'])]


@pytest.fixture(scope='module')
def expected(base, folders):
    """Tokens by folder (None: the base) and prompt."""
    llm = make_llm(base, enable_lora=True)
    loras = [None, *(LoRARequest(str(i), i, str(p)) for i, p in enumerate(folders, 1))]
    return {
        (lora and lora.lora_path, i): tokens
        for lora in loras
        for i, tokens in enumerate(run(llm, PROMPTS, greedy(LONGEST), lora))
    }


class Turmoil:
    """Random calls of an engine, whose answers are checked as they end."""

    def __init__(self, engine, folders, expected, seed):
        self.engine, self.folders, self.expected = engine, [str(p) for p in folders], expected
        self.random = random.Random(seed)
        self.wanted, self.found = {}, {}
        self.loads, self.ends = 0, []

    def call(self):
        draw, chance = self.random, self.random.random()
        number = draw.randint(1, 5)
        if chance < 0.5:
            lora = None
            if number in self.engine.adapters:
                lora = LoRARequest('x', number, self.engine.adapters.get(number).request.lora_path)
            name, prompt, tokens = str(len(self.found)), draw.randrange(len(PROMPTS)), draw.randint(1, LONGEST)
            self.engine.add_request(EngineRequest(name, PROMPTS[prompt], greedy(tokens), lora))
            self.wanted[name] = self.expected[lora and lora.lora_path, prompt][:tokens]
            self.found[name] = []
        elif chance < 0.8:
            self.engine.load_lora(LoRARequest('x', number, draw.choice(self.folders)), self.ends.append)
            self.loads += 1
        elif chance < 0.88:
            self.engine.remove_lora(number)
        elif self.wanted:
            name = draw.choice(list(self.wanted))
            self.engine.abort(name)
            del self.wanted[name]

    def step(self):
        for out in self.engine.step():
            if out.request_id in self.wanted:
                assert out.error is None
                self.found[out.request_id] += out.token_ids
                if out.finish_reason is not None:
                    assert self.found[out.request_id] == self.wanted.pop(out.request_id)


@pytest.mark.parametrize('kind', SMALL)
def test_any_order_of_calls(base, folders, expected, kind, monkeypatch):
    """Every answer is that of the weights its request came for, all end, and nothing is left of what was removed."""
    read, wait = AdapterFormat.read, random.Random(1)

    def late(self, path):
        time.sleep(wait.random() * 0.003)
        return read(self, path)

    monkeypatch.setattr(AdapterFormat, 'read', late)
    engine = make_llm(base, enable_lora=True, max_lora_rank=16, max_model_len=128, **SMALL[kind]).engine
    if 'lookahead' in SMALL[kind]:
        hold_results_back(engine, seed=1)
    turmoil = Turmoil(engine, folders, expected, seed=kind)
    for _ in range(150):
        turmoil.call()
        for _ in range(turmoil.random.choice([0, 1, 3])):
            turmoil.step()
    deadline = time.monotonic() + 60
    while engine.has_work:
        turmoil.step()
        assert time.monotonic() < deadline, engine.stats()
    assert not turmoil.wanted and len(turmoil.ends) == turmoil.loads
    assert all(end is None or 'was removed while' in end for end in turmoil.ends)
    for number in range(1, 6):
        engine.remove_lora(number)
    table, manager = engine.adapters, engine.executor.runner.lora
    assert len(table._free) == table.num_pages and not (table._by_uid or table._idle or table._closed)
    assert not (manager.reader.copies or manager._slots or manager._vocab or engine.library._loading)
    assert engine.library.num_copies == engine.library._copies._bytes == engine.blocks.num_used == 0
