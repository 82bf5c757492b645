"""Tensor parallelism over gloo: two ranks give one rank's tokens, and a dead rank an error."""

import os
import signal

import pytest

from swiftlite import LoRARequest
from swiftlite.engine import EngineDeadError, EngineRequest
from swiftlite.engine.runner import executor
from swiftlite.errors import SwiftliteError
from tests.engine.runs import greedy, make_llm, random_prompts, run
from tests.tiny import tiny_adapter, tiny_qwen2

PROMPTS = random_prompts(8, seed=2)


def test_two_ranks_are_one(base, adapters):
    loras = [None] + [LoRARequest(p.name, i + 1, str(p)) for i, p in enumerate(adapters)]
    mix = [loras[i % 4] for i in range(len(PROMPTS))]
    expected = run(make_llm(base, enable_lora=True), PROMPTS, lora=mix)
    two = make_llm(base, enable_lora=True, tensor_parallel_size=2)
    try:
        assert run(two, PROMPTS, lora=mix) == expected
        worker = two.engine.executor.workers[0]
        with open(f'/proc/{worker.process.pid}/environ', 'rb') as file:
            assert b'pinned_use_cuda_host_register:True' in file.read()
        send = worker.send
        worker.send = lambda kind, *rest: send(kind, *(r if r != str(adapters[0]) else '/nowhere' for r in rest))
        with pytest.raises(SwiftliteError, match='/nowhere is not a folder'):  # only the other rank says so
            two.engine.add_lora(LoRARequest('late', 9, str(adapters[0])))
        worker.send = send
        assert 9 not in two.engine.adapters
        assert sorted(two.engine.executor.runner.lora.reader.copies) == [1, 2, 3]  # nothing is kept of it
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(EngineDeadError, match='rank 1'):
            run(two, PROMPTS)
        with pytest.raises(EngineDeadError):
            run(two, PROMPTS[:1])
    finally:
        two.shutdown()


def test_what_a_broken_step_computed_is_no_result(base):
    """On a GPU the sum over ranks is broken off when one dies: what rank 0 then has is no token."""
    two = make_llm(base, tensor_parallel_size=2)
    try:
        submit = two.engine.executor.runner.submit

        def dies_meanwhile(plan):
            future = submit(plan)
            two.engine.executor._dead = 'rank 1 is gone'
            return future

        two.engine.executor.runner.submit = dies_meanwhile
        with pytest.raises(EngineDeadError, match='rank 1 is gone'):
            two.engine.add_request(EngineRequest('one', PROMPTS[0], greedy()))
            two.engine.step()
    finally:
        two.shutdown()


@pytest.mark.filterwarnings('ignore:.*save_embedding_layers', 'ignore:Model has .tie_word_embeddings')
def test_ranks_share_a_kv_head_and_an_odd_vocabulary(tmp_path):
    tiny_qwen2(tmp_path / 'm', num_key_value_heads=1, vocab_size=129, tie_word_embeddings=True)
    targets = (None, ['embed_tokens', 'lm_head', 'q_proj'], ['v_proj'])
    folders = [tiny_adapter(tmp_path / str(i), tmp_path / 'm', i, targets=t) for i, t in enumerate(targets)]
    adapters = [LoRARequest(f.name, i, str(f)) for i, f in enumerate(folders, 1)]
    mix = [adapters[i % 3] for i in range(len(PROMPTS))]
    expected = run(make_llm(tmp_path / 'm', enable_lora=True), PROMPTS, lora=mix)
    few = {'max_loras': 1, 'max_lora_rank': 8, 'max_cpu_loras': 1}  # each is read again on both ranks
    two = make_llm(tmp_path / 'm', enable_lora=True, tensor_parallel_size=2, **few)
    try:
        assert run(two, PROMPTS, lora=mix) == expected
        assert run(two, PROMPTS, lora=mix) == expected
        assert two.engine.stats()['adapter_reads'] > 3
    finally:
        two.shutdown()


def test_a_size_that_does_not_divide_is_one_sentence(base, monkeypatch):
    monkeypatch.setattr(executor, 'Worker', None)  # none is started
    with pytest.raises(SwiftliteError, match=r'tensor_parallel_size 3 does not divide the attention heads .*\(4\)'):
        make_llm(base, tensor_parallel_size=3)
