"""Adapters on disk, in host memory and in pages: loading disturbs nobody, what fails costs its own requests only."""

import gc
import json
import os
import shutil
import threading
import time
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from swiftlite import LoRARequest
from swiftlite.engine import EngineRequest
from swiftlite.engine.adapters.host import AdapterFormat
from swiftlite.errors import SwiftliteError
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.tiny import tiny_adapter, tiny_qwen2

PROMPTS = random_prompts(6, seed=4)


@pytest.fixture
def llm(base):
    return make_llm(base, enable_lora=True, max_loras=1, max_lora_rank=16, max_cpu_loras=1)


@pytest.fixture
def slow(monkeypatch):
    """Reading an adapter waits for this event."""
    event, read = threading.Event(), AdapterFormat.read

    def waiting(self, path):
        assert event.wait(30)
        return read(self, path)

    monkeypatch.setattr(AdapterFormat, 'read', waiting)
    yield event
    event.set()


def request(name, prompt, lora=None, tokens=8):
    return EngineRequest(name, prompt, greedy(tokens), lora)


def finish(engine, *names):
    """Step until these requests end; everything that came, by request."""
    found, errors = {}, {}
    waiting = set(names)
    while waiting:
        assert engine.has_work, waiting
        for out in engine.step():
            found.setdefault(out.request_id, []).extend(out.token_ids)
            if out.finish_reason is not None:
                waiting.discard(out.request_id)
                if out.error is not None:
                    errors[out.request_id] = out.error
    return found, errors


def test_reading_an_adapter_stops_nobody(base, adapters, slow):
    """Running requests go on while an adapter is read; the one that waits for it starts when it is there."""
    llm = make_llm(base, enable_lora=True)
    engine = llm.engine
    first, second = (LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters[:2]))
    slow.set()
    expected = [run(llm, [PROMPTS[0]], greedy(8), lora)[0] for lora in (None, first, second)]
    engine.remove_lora(2)
    slow.clear()
    loaded = []
    engine.add_request(request('late', PROMPTS[0], second))  # not known: it is loaded by the way
    engine.load_lora(LoRARequest('third', 3, str(adapters[2])), loaded.append)
    engine.add_request(request('plain', PROMPTS[0]))
    engine.add_request(request('adapted', PROMPTS[0], first))
    found, _ = finish(engine, 'plain', 'adapted')
    assert (found['plain'], found['adapted']) == (expected[0], expected[1])
    assert 'late' not in found and not loaded
    slow.set()
    assert finish(engine, 'late')[0]['late'] == expected[2]
    while not loaded:
        engine.step()
    assert loaded == [None] and engine.remove_lora(3)


def test_adapters_beyond_host_memory_are_read_again(base, adapters, llm):
    loras = [LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters)]
    mix = [loras[i % 3] for i in range(len(PROMPTS))]
    expected = run(make_llm(base, enable_lora=True), PROMPTS, lora=mix)
    for _ in range(2):
        assert run(llm, PROMPTS, lora=mix) == expected
        assert len(llm.engine.executor.runner.lora.reader.copies) == llm.engine.stats()['adapters_in_memory'] == 1
    stats = llm.engine.stats()
    assert stats['adapters'] == 3 and stats['adapter_reads'] >= 3 + 2 and stats['adapter_pages_used'] <= 2


def test_read_ahead_keeps_to_the_order_and_to_the_room(base, adapters, tmp_path):
    """While one adapter has the pages, as many of the next ones are read as host memory holds, the oldest first."""
    llm = make_llm(base, enable_lora=True, max_loras=1, max_lora_rank=16, max_cpu_loras=3)
    engine = llm.engine
    loras = [LoRARequest(str(i), i, str(shutil.copytree(adapters[1], tmp_path / str(i)))) for i in range(1, 9)]
    for lora in [*loras[:5], *loras[6:], loras[5]]:  # the last three are in memory
        engine.add_lora(lora)
    for lora in [loras[5], *loras[:5]]:
        engine.add_request(request(lora.lora_name, PROMPTS[0], lora, tokens=150))
    for _ in range(20):
        engine.step()
        while engine.library.busy:
            time.sleep(0.02)  # the first one answers meanwhile
            engine.step()
    entries = [engine.adapters.get(i) for i in range(1, 7)]
    assert [e.uid for e in entries if e.pages] == [entries[5].uid]
    assert sorted(engine.executor.runner.lora.reader.copies) == [entries[i].uid for i in (0, 1, 2)]
    _, errors = finish(engine, *(lora.lora_name for lora in loras[:6]))
    assert not errors


def test_a_folder_that_goes_away_or_changes_costs_its_own_requests(base, adapters, llm, tmp_path):
    folder = tmp_path / 'adapter'
    shutil.copytree(adapters[0], folder)
    mine, other = LoRARequest('mine', 1, str(folder)), LoRARequest('other', 2, str(adapters[1]))
    engine = llm.engine
    expected = [
        run(llm, [p], greedy(8), lora)[0] for p, lora in zip(PROMPTS, (mine, other), strict=False)
    ]  # `other` has taken the pages and host memory
    for change, says in (
        (lambda: folder.rename(tmp_path / 'away'), 'is not a folder'),
        (lambda: os.utime((tmp_path / 'away').rename(folder) / 'adapter_model.safetensors'), 'has changed since'),
    ):
        change()
        engine.add_request(request('lost', PROMPTS[0], mine))
        engine.add_request(request('found', PROMPTS[1], other))
        found, errors = finish(engine, 'lost', 'found')
        assert says in errors.pop('lost') and not errors and 'lost' not in [k for k, v in found.items() if v]
        assert found['found'] == expected[1]
    engine.add_lora(mine)  # what is there now
    assert run(llm, PROMPTS[:2], greedy(8), [mine, other]) == expected
    stats = engine.stats()
    assert (stats['num_running'], stats['num_waiting'], stats['blocks_used']) == (0, 0, 0)


def test_replaced_and_removed_while_requests_run(base, adapters):
    """What came before keeps the old weights, what comes after has the new ones, and the rest is forgotten."""
    llm = make_llm(base, enable_lora=True)
    engine = llm.engine
    old, new = (LoRARequest('x', 1, str(p)) for p in adapters[:2])
    prompt = PROMPTS[0]
    expected = {p: run(make_llm(base, enable_lora=True), [prompt], greedy(20), p)[0] for p in (old, new)}
    engine.add_request(request('before', prompt, old, 20))
    tokens = [t for _ in range(3) for out in engine.step() for t in out.token_ids]
    engine.add_lora(new)
    engine.add_request(request('after', prompt, new, 20))
    tokens += [t for _ in range(3) for out in engine.step() if out.request_id == 'before' for t in out.token_ids]
    assert engine.remove_lora(1)
    found, errors = finish(engine, 'before', 'after')
    assert tokens + found['before'] == expected[old] and not errors
    assert found['after'] == expected[new][-len(found['after']) :]
    engine.add_lora(old)
    assert run(llm, [prompt], greedy(20), old)[0] == expected[old]
    engine.remove_lora(1)
    stats = engine.stats()
    assert (stats['adapters'], stats['adapter_pages_used'], stats['adapters_in_memory']) == (0, 0, 0)
    assert not engine.executor.runner.lora.reader.copies and not engine.adapters._by_uid


def test_old_weights_outlive_their_folder(base, adapters, tmp_path):
    """New weights are written over the old ones and loaded, while sequences of the old ones are preempted."""
    folder = shutil.copytree(adapters[0], tmp_path / 'a')
    options = {'enable_lora': True, 'max_loras': 2, 'max_lora_rank': 16, 'max_cpu_loras': 2}
    prompts = random_prompts(6, seed=8, low=20, high=30)
    lora, other = LoRARequest('a', 1, str(folder)), LoRARequest('b', 2, str(adapters[2]))
    expected = run(make_llm(base, **options), prompts, greedy(40), lora)
    engine = make_llm(base, num_gpu_blocks_override=8, max_model_len=80, **options).engine
    for i, prompt in enumerate(prompts):
        engine.add_request(request(f'old{i}', prompt, lora, 40))
    tokens = {f'old{i}': [] for i in range(6)}

    def step():
        for out in engine.step():
            assert out.error is None
            tokens.get(out.request_id, []).extend(out.token_ids)

    while not engine.stats()['num_running']:
        step()
    shutil.copytree(adapters[1], folder, dirs_exist_ok=True)
    engine.load_lora(lora, lambda error: None)
    for i in range(8):
        engine.add_request(request(f'other{i}', prompts[0], other, 20))
        engine.add_request(request(f'new{i}', prompts[0], lora, 20))
    while engine.has_work:
        step()
    assert list(tokens.values()) == expected
    assert engine.stats()['num_preemptions'] > 0


def test_removed_while_it_is_read(adapters, base, slow):
    """The load ends with a sentence; a request that waits for it is answered."""
    engine = make_llm(base, enable_lora=True).engine
    lora, ends = LoRARequest('x', 1, str(adapters[0])), []
    engine.load_lora(lora, ends.append)
    engine.load_lora(LoRARequest('y', 2, str(adapters[0])), ends.append)
    engine.add_request(request('r', PROMPTS[0], lora))
    engine.step()
    assert engine.remove_lora(1) and engine.remove_lora(2) and len(engine.adapters) == 0
    slow.set()
    found, errors = finish(engine, 'r')
    assert len(found['r']) == 8 and not errors
    while engine.has_work:
        engine.step()
    assert sorted(ends) == [f"Adapter '{name}' was removed while it was loaded." for name in 'xy']
    assert not engine.executor.runner.lora.reader.copies and engine.stats()['adapter_pages_used'] == 0


def test_an_end_that_is_known_while_another_adapter_is_loaded_is_told(adapters, base):
    engine = make_llm(base, enable_lora=True).engine
    engine.add_request(request('r', PROMPTS[0], LoRARequest('x', 1, '/no-such-folder')))
    while engine.library.busy:
        engine.add_lora(LoRARequest('y', 2, str(adapters[0])))
    assert 'no-such-folder' in finish(engine, 'r')[1]['r']


def test_the_last_weights_asked_for_win(adapters, base, monkeypatch):
    """Whichever of two replacements is read first."""
    read, gate = AdapterFormat.read, threading.Event()

    def ordered(self, path):
        if path.endswith('first'):
            assert gate.wait(30)
        return read(self, path)

    monkeypatch.setattr(AdapterFormat, 'read', ordered)
    llm = make_llm(base, enable_lora=True)
    links = [adapters[0].parent / name for name in ('old', 'first', 'last')]
    for link, folder in zip(links, adapters, strict=True):
        link.symlink_to(folder)
    old, first, last = (LoRARequest('x', 1, str(link)) for link in links)
    llm.engine.add_lora(old)
    ends = []
    llm.engine.load_lora(first, ends.append)
    llm.engine.add_lora(last)
    gate.set()
    while not ends:
        llm.engine.step()
    expected = run(make_llm(base, enable_lora=True), PROMPTS[:1], greedy(8), LoRARequest('c', 1, str(adapters[2])))
    assert run(llm, PROMPTS[:1], greedy(8), last) == expected
    assert len(llm.engine.executor.runner.lora.reader.copies) == llm.engine.stats()['adapters_in_memory'] == 1


def test_replacements_that_do_not_fit_into_host_memory_together(adapters, llm):
    """A copy that was read and waits to be taken in is not dropped for the next one's sake."""
    engine, (old, *new) = llm.engine, (LoRARequest(p.name, 1, str(p)) for p in adapters)
    copies, ends = engine.executor.runner.lora.reader.copies, []
    engine.add_lora(old)
    for lora in new:
        known = set(copies)
        engine.load_lora(lora, ends.append)
        while not set(copies) - known:
            time.sleep(0.005)
    while len(ends) < 2:
        engine.step()
    expected = run(make_llm(engine.config.model, enable_lora=True), PROMPTS[:1], greedy(8), new[1])
    assert run(llm, PROMPTS[:1], greedy(8), new[1]) == expected
    assert len(copies) == engine.stats()['adapters_in_memory'] == 1


def test_hundreds_are_read_at_once(base, adapters):
    """More than fit into the pipe that brings the news."""
    engine = make_llm(base, enable_lora=True).engine
    engine.add_loras(LoRARequest(str(i), i, str(adapters[2])) for i in range(1, 701))
    assert len(engine.adapters) == engine.stats()['adapters_in_memory'] == 700


def broken(folder, kind):
    weights, config = folder / 'adapter_model.safetensors', folder / 'adapter_config.json'
    settings = json.loads(config.read_text())
    if kind == 'truncated':
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == 'no adapter':
        config.unlink()
    elif kind == 'unsupported':
        config.write_text(json.dumps(settings | {'layer_replication': [[0, 2]]}))
    elif kind == 'unreadable':
        config.write_bytes(b'\xff{')
    else:
        tensors = load_file(weights)
        tensors[next(name for name in tensors if 'lora_B' in name)][0, 0] = float(kind)
        save_file(tensors, weights)


@pytest.mark.parametrize(
    ('kind', 'says'),
    [
        ('nan', r'lora_B of model\.layers\.0.* holds values that are not finite'),
        ('-inf', r'lora_B of model\.layers\.0.* holds values that are not finite'),
        ('truncated', 'is damaged'),
        ('no adapter', r'no adapter_config\.json'),
        ('unsupported', 'layer_replication'),
        ('unreadable', r'adapter_config\.json'),
    ],
)
def test_a_bad_adapter_is_one_sentence_and_leaves_nothing(base, adapters, tmp_path, kind, says, shared):
    folder = shutil.copytree(adapters[0], tmp_path / 'bad')
    broken(folder, kind)
    refuse(shared, folder, says)


@pytest.mark.parametrize('shape', [{'hidden_size': 128}, {'intermediate_size': 64}, {'num_hidden_layers': 3}])
def test_another_bases_adapter_is_refused(tmp_path, shape, shared):
    base = tiny_qwen2(tmp_path / 'other', **shape)
    refuse(shared, tiny_adapter(tmp_path / 'adapter', base), 'trained on another base|not a linear layer of this model')


@pytest.fixture(scope='module')
def shared(base):
    return make_llm(base, enable_lora=True)


def refuse(llm, folder, says):
    engine, lora = llm.engine, LoRARequest('bad', 77, str(folder))
    expected = run(llm, PROMPTS[:1])
    before = engine.stats()
    with pytest.raises(SwiftliteError, match=says) as error:
        engine.add_lora(lora)
    assert '\n' not in str(error.value)
    engine.add_request(request('bad', PROMPTS[0], lora))  # and so does a request that brings it
    engine.add_request(request('good', PROMPTS[0], tokens=16))
    found, errors = finish(engine, 'bad', 'good')
    assert errors == {'bad': str(error.value)} and found['good'] == expected[0]
    after = engine.stats()
    assert {k: after[k] for k in before if 'adapter' in k and k != 'adapter_reads'} == {
        k: before[k] for k in before if 'adapter' in k and k != 'adapter_reads'
    }
    assert not engine.executor.runner.lora.reader.copies


def test_values_too_large_for_the_models_dtype_are_named(base, tmp_path):
    folder = tiny_adapter(tmp_path / 'a', base)
    tensors = load_file(folder / 'adapter_model.safetensors')
    name = 'base_model.model.model.layers.1.mlp.up_proj.lora_B.weight'
    tensors[name][0, 0] = 1e5
    save_file(tensors, folder / 'adapter_model.safetensors')
    with pytest.raises(SwiftliteError, match=r"lora_B of 'model\.layers\.1\.mlp\.up_proj' is too large for float16"):
        make_llm(base, enable_lora=True, dtype='float16').engine.add_lora(LoRARequest('a', 1, str(folder)))


def resident_bytes():
    gc.collect()
    with open('/proc/self/statm') as f:
        return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def device_bytes():
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def test_a_thousand_loads_leave_memory_where_it_was(base, adapters, tmp_path):
    llm = make_llm(base, enable_lora=True, max_loras=2, max_lora_rank=64)
    engine = llm.engine
    big = {name: LoRARequest(name, i + 1, str(tmp_path / name)) for i, name in enumerate('ab')}
    for i, lora in enumerate(big.values()):
        tiny_adapter(lora.lora_path, base, seed=i, rank=64, targets=['q_proj', 'o_proj'])

    def load_and_unload(times):
        for i in range(times):
            lora = big['ab'[i % 2]]
            engine.add_lora(lora)
            if i % 100 == 0:
                run(llm, PROMPTS[:2], greedy(2), lora)
            engine.remove_lora(lora.lora_int_id)

    load_and_unload(60)
    before, on_device = resident_bytes(), device_bytes()
    load_and_unload(1000)
    grown = resident_bytes() - before
    assert device_bytes() <= on_device + (1 << 20)
    size = sum(t.nbytes for t in load_file(f'{tmp_path}/a/adapter_model.safetensors').values())
    assert grown < 100 * size  # a thousand were there
    stats = engine.stats()
    assert (stats['adapters'], stats['adapters_in_memory'], stats['adapter_pages_used']) == (0, 0, 0)
    assert not engine.adapters._by_uid and not engine.executor.runner.lora._slots
    assert len(engine.adapters._free) == engine.adapters.num_pages


@pytest.mark.parametrize(
    'options', [{'max_cpu_loras': 0}, {'max_cpu_loras': 2, 'max_loras': 4}, {'max_cpu_loras': 'x'}]
)
def test_options_that_cannot_be(base, options):
    with pytest.raises(SwiftliteError, match='max_cpu_loras'):
        make_llm(base, enable_lora=True, **options)


def test_nothing_of_an_engine_stays_when_it_is_gone(base, adapters):
    """The reading thread holds no model."""
    llm = make_llm(base, enable_lora=True)
    run(llm, PROMPTS[:1], greedy(2), LoRARequest('a', 1, str(adapters[0])))
    alive = weakref.ref(next(llm.engine.executor.runner.model.parameters()))
    llm.shutdown()
    del llm
    deadline = time.monotonic() + 30
    while alive() is not None:
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.05)
