"""`swiftlite bench adapters` on a tiny model: its figures, the loop that times first tokens, refusals."""

import json
from collections import Counter
from pathlib import Path

import pytest

from swiftlite.args.bench_adapters import AdapterBenchArgs
from swiftlite.bench import adapter_loads, adapters
from swiftlite.bench.adapter_folders import adapter_bytes, adapter_folders, pick
from swiftlite.bench.open_loop import open_loop
from swiftlite.bench.setting import setting
from swiftlite.cli.main import run as main
from swiftlite.engine.engine import Engine
from swiftlite.engine.offline import LLM
from swiftlite.engine.request import EngineRequest, LoRARequest
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.errors import SwiftliteError, UsageError

SHORT = '--num_prompts 6 --max_input_len 24 --max_output_len 20'


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(adapters, 'WARM_UPS', 2)
    monkeypatch.setattr(adapters, 'NUM_LOADED', 2)
    for name, value in (('RUNNING', 3), ('ALONE', 4), ('BEFORE', 2), ('ROUNDS', 2)):
        monkeypatch.setattr(adapter_loads, name, value)


def measured(tmp_path, base, words):
    out = tmp_path / 'numbers.json'
    assert main(['bench', 'adapters', '--model', str(base), *f'{SHORT} {words}'.split(), '--output', str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_adapters_in_turn_are_warm(tmp_path, base, capsys):
    words = '--num_adapters 1 3 --lora_rank 4 8 --latency_requests 3 --request_rate 100 --lora_off true'
    plain, one, three, off = measured(tmp_path, base, f'{words} --plot {tmp_path / "a.png"}')
    assert [(line['pass'], line['adapters']) for line in (plain, one, three, off)] == [
        ('base', 0),
        ('warm', 1),
        ('warm', 3),
        ('LoRA off', 0),
    ]
    assert plain['share_of_base'] == 1 and plain['pool_gib'] > 0 and off['pool_gib'] == 0
    for line in (one, three):
        assert line['share_of_base'] == pytest.approx(plain['seconds'] / line['seconds'], rel=0.01)
        assert line['adapters_asked_for'] == line['adapters_on_device'] == line['adapters']
        assert line['adapter_reads'] == line['adapter_uploads'] == 0  # all were known before
        assert 0 < line['ttft_ms']['p50'] <= line['ttft_ms']['p99'] and line['itl_ms']['p50'] > 0
    assert 0 == plain['copies_gib'] < one['copies_gib'] < three['copies_gib']
    assert (tmp_path / 'a.png').stat().st_size > 5000
    assert 'TTFT p50' in capsys.readouterr().out


def test_drawn_adapters_are_cold_then_warm(tmp_path, base):
    words = '--num_adapters 0 2 5 --adapter_choice zipf --lora_rank 4 --max_loras 2 --latency_requests 0'
    _, *lines = measured(tmp_path, base, words)
    assert [(line['adapters'], line['pass']) for line in lines] == [(2, 'cold'), (2, 'warm'), (5, 'cold'), (5, 'warm')]
    for line in lines:
        drawn = set(pick('zipf', line['adapters'], 6, 0))
        assert line['adapters_asked_for'] == len(drawn) >= 2
        assert line['adapter_reads'] == (len(drawn) if line['pass'] == 'cold' else 0)
        assert 'ttft_ms' not in line
    assert lines[1]['adapter_uploads'] == 0  # two fit on the device


def test_loads_and_unloads(tmp_path, base):
    words = '--num_adapters 0 --max_loras 2 --lora_rank 4 --latency_requests 0 --num_loads 5'
    found = measured(tmp_path, base, words)[-1]
    assert (found['kind'], found['loads'], found['running']) == ('adapter_loads', 5, 3)
    assert found['reads'] == found['uploads'] == 4
    for name in ('step_ms_alone', 'step_ms_while_read', 'step_ms_with_uploads', 'step_ms_without_uploads'):
        assert 0 < found[name]['p50'] <= found[name]['p99'] <= found[name]['max']
    before, after = found['memory_before'], found['memory_after']
    assert before['copies_gib'] == after['copies_gib'] > 0 and after['rss_gib'] > 0


def test_ctrl_c_among_the_loads_gives_those_that_were_done(tmp_path, base, monkeypatch, capsys):
    add, ids = Engine.add_lora, []

    def interrupted(self, lora):
        ids.append(lora.lora_int_id)
        if len(ids) == 4:
            raise KeyboardInterrupt
        add(self, lora)

    monkeypatch.setattr(Engine, 'add_lora', interrupted)
    monkeypatch.setattr(adapter_loads, 'SAY_EVERY', 0)
    words = '--num_adapters 0 --max_loras 2 --lora_rank 4 --latency_requests 0 --num_loads 50'
    out = tmp_path / 'numbers.json'
    command = ['bench', 'adapters', '--model', str(base), *f'{SHORT} {words}'.split(), '--output', str(out)]
    assert main(command) == 130
    found = json.loads(out.read_text().splitlines()[-1])
    assert (found['kind'], found['loads']) == ('adapter_loads', 3) and found['seconds_per_load'] > 0
    assert '3 of 50 loads' in capsys.readouterr().out


def test_no_more_adapters_are_read_than_are_asked_for(tmp_path, base):
    words = '--num_adapters 30 --lora_rank 4 --max_loras 2 --latency_requests 0'
    _, line = measured(tmp_path, base, words)
    assert (line['adapters'], line['adapters_asked_for'], line['adapters_in_memory']) == (30, 6, 6)
    assert line['adapter_reads'] == 0 and line['adapters_on_device'] == 2


def test_few_files_stand_for_many_adapters(base, tmp_path):
    args = AdapterBenchArgs(
        model_id_or_path=str(base), num_adapters=[40], lora_rank=[2, 4], adapter_dir=str(tmp_path), max_model_len=64
    )
    with setting(args, tokenizer=False) as what, adapter_folders(args, what, 40) as loras:
        files = [Path(lora.lora_path) / 'adapter_model.safetensors' for lora in loras]
        assert len({file.parent for file in files}) == len({lora.lora_int_id for lora in loras}) == 40
        assert len({file.resolve() for file in files}) == 16 and all(file.is_relative_to(tmp_path) for file in files)
        ranks = [json.loads((file.parent / 'adapter_config.json').read_text())['r'] for file in files]
        assert ranks == [2, 4] * 20
        size = adapter_bytes(what.config.decoder, 2)
        assert size < files[0].stat().st_size < 1.5 * size  # names and shapes beside the numbers
    assert not list(tmp_path.iterdir())


def test_a_draw_is_seeded_and_the_first_adapter_is_most_asked_for():
    drawn = pick('zipf', 100, 5000, 3)
    assert drawn == pick('zipf', 100, 5000, 3) != pick('zipf', 100, 5000, 4)
    counts = Counter(drawn)
    weights = sum(1 / (k + 1) for k in range(100))
    assert counts[0] == pytest.approx(5000 / weights, rel=0.1)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.2)


def test_requests_arrive_while_others_run(base, tmp_path):
    llm = LLM(str(base), skip_tokenizer_init=True, device='cpu', enable_lora=True)
    params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=6, detokenize=False)
    requests = [EngineRequest(f'{index}', [5, 6, 7], params) for index in range(3)]
    load = open_loop(llm.engine, requests, [0.0, 0.0, 0.2], 'test')
    assert load.most_at_once == 2  # the third came when the others were done
    assert load.rows[2].sent >= 0.2 and load.seconds > 0.2
    for row in load.rows:
        assert row.output_tokens == 6 and len(row.gaps) == 5
        assert row.e2e == pytest.approx(row.ttft + sum(row.gaps))
    missing = EngineRequest('x', [5, 6], params, LoRARequest('none', 1, str(tmp_path / 'none')))
    with pytest.raises(SwiftliteError, match='none'):
        open_loop(llm.engine, [requests[0], missing], [0.0, 0.0], 'test')
    assert not llm.engine.scheduler.has_work
    llm.shutdown()


def test_ctrl_c_prints_what_was_finished(base, monkeypatch, capsys):
    def interrupted(self, count):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(adapters.AdapterBench, 'adapted', interrupted)
    command = ['bench', 'adapters', '--model', str(base), *SHORT.split(), '--lora_rank', '2', '--latency_requests', '1']
    assert main(command) == 130
    out, err = capsys.readouterr()
    assert '"pass": "base"' in out and 'the measurements that were finished' in err


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('--workload mixed chat', '--workload takes one here, not 2'),
        ('--workload chat --max_input_len 20', '--max_input_len is about --workload mixed'),
        ('--workload chat', '--workload chat has a request of'),
        ('--workload chat-lora', "did you mean 'chat'"),
        ('--num_adapters 4 -1', '--num_adapters must be at least 0, not -1'),
        ('--lora_rank 8 16 --max_lora_rank 8', '--lora_rank 16 is above --max_lora_rank 8'),
        ('--adapter_choice zip', "did you mean 'zipf'"),
        ('--max_cpu_loras 2', '--max_cpu_loras 2 is below --max_loras 32'),
        ('--latency_requests 0 --request_rate 4', 'which is 0'),
        ('--adapter_dir no/such', "'no/such' is no folder"),
        ('--config_preset qwen2.5-7b', 'stands in place of a model'),
        ('--num_loads 4 --max_num_seqs 1', '--num_loads measures requests beside others'),
    ],
)
def test_mistakes_are_one_sentence(words, said, base, capsys):
    assert main(['bench', 'adapters', '--model', str(base), *words.split()]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and '\n' not in err


def test_numbers_of_adapters_size_the_engine():
    args = AdapterBenchArgs(model_type='tiny-chat', num_adapters=[3, 500], lora_rank=[4, 16, 8])
    assert (args.engine_options()['max_loras'], args.engine_options()['max_lora_rank']) == (128, 16)
    assert AdapterBenchArgs(model_type='tiny-chat', num_adapters=[3, 2]).max_loras == 3
    with pytest.raises(UsageError, match='--num_adapters must be at least 0'):
        AdapterBenchArgs(model_type='tiny-chat', num_adapters=[-1])
