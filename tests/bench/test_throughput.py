"""`swiftlite bench throughput` and `latency` on a tiny model: tables, numbers, refusals."""

import json
import statistics
import sys

import pytest

from swiftlite.args.bench import BenchArgs
from swiftlite.bench import throughput, vllm_child, vllm_engine
from swiftlite.bench.workload import mixed
from swiftlite.cli.main import run as main
from swiftlite.engine.offline import LLM
from swiftlite.errors import UsageError

SHORT = ['--num_prompts', '4', '--max_input_len', '30', '--max_output_len', '20', '--num_warmups', '2']


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_numbers_are_consistent(tmp_path, base, capsys):
    out = tmp_path / 'numbers.json'
    assert main(['bench', 'throughput', '--model', str(base), *SHORT, '--output', str(out)]) == 0
    ours, *others = lines_of(out)
    assert [line['engine'] for line in others] == ['transformers, one padded batch', 'transformers, one by one']
    assert ours['engine'] == 'swiftlite' and ours['startup_seconds'] > 0
    assert ours['output_tokens'] == sum(r.output_len for r in mixed(4, (16, 30), (16, 20), 128, 0))
    for line in others:
        ratio = ours['output_tokens_per_second'] / line['output_tokens_per_second']
        assert line['swiftlite_is_faster_by'] == pytest.approx(ratio, rel=0.02)
    assert 0 < ours['share_of_ceiling'] < 1
    assert ours['ceilings']['copy_tb_s'] > 0 and ours['versions']['torch'] and ours['hardware']['cpu']
    printed = capsys.readouterr().out
    assert 'one padded batch' in printed and json.dumps(ours, ensure_ascii=False) in printed


def test_several_workloads_with_adapters_text_and_repeats(tmp_path, checkpoint):
    out = tmp_path / 'numbers.json'
    command = f'bench throughput --model {checkpoint} --workload mixed mixed-lora --num_adapters 2 --lora_rank 4'
    command += ' --temperature 0.7 --top_p 0.9 --repeats 3 --ceilings false'
    assert main([*command.split(), *SHORT, '--output', str(out)]) == 0
    bare, adapted = lines_of(out)
    assert (bare['workload'], adapted['workload'], adapted['adapters']) == ('mixed', 'mixed-lora', 2)
    assert bare['detokenize'] and bare['sampling'] == {'temperature': 0.7, 'top_p': 0.9, 'top_k': -1}
    for line in (bare, adapted):
        assert len(line['all_seconds']) == 3
        assert line['seconds'] == pytest.approx(statistics.median(line['all_seconds']), abs=1e-4)
        assert 'ceilings' not in line
    assert adapted['share_of_bare_model'] == pytest.approx(bare['seconds'] / adapted['seconds'], rel=0.01)


def test_a_repeat_finds_no_prompt_in_the_cache(base):
    llm = LLM(str(base), skip_tokenizer_init=True, device='cpu')
    prompt = {'prompt_token_ids': list(range(64))}
    llm.generate(prompt, use_tqdm=False)
    assert llm.generate(prompt, use_tqdm=False)[0].num_cached_tokens == 48
    assert llm.reset_prefix_cache()
    assert llm.generate(prompt, use_tqdm=False)[0].num_cached_tokens == 0
    llm.shutdown()


def test_ctrl_c_prints_what_was_finished(base, monkeypatch, capsys):
    generate, calls = throughput._generate, []

    def interrupted(*words):
        calls.append(words)
        if len(calls) == 4:  # the second workload's measured run
            raise KeyboardInterrupt
        return generate(*words)

    monkeypatch.setattr(throughput, '_generate', interrupted)
    command = ['bench', 'throughput', '--model', str(base), *SHORT, '--workload', 'mixed', 'mixed-lora']
    assert main([*command, '--num_adapters', '1', '--lora_rank', '2', '--ceilings', 'false']) == 130
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])['workload'] == 'mixed'
    assert 'the measurements that were finished' in err


def test_latency_times_each_token(tmp_path, base, capsys):
    out = tmp_path / 'latency.json'
    command = f'bench latency --model {base} --batch_size 3 --input_len 20 --output_len 8 --repeats 2 --num_warmups 1'
    assert main([*command.split(), '--output', str(out)]) == 0
    (line,) = lines_of(out)
    assert line['batches'] == 2 and line['batch_size'] == 3
    for name in ('ttft_ms', 'itl_ms', 'e2e_ms'):
        values = line[name]
        assert 0 < values['p50'] <= values['p90'] <= values['p99'] <= values['max']
    assert line['ttft_ms']['p50'] < line['e2e_ms']['p50']
    assert 'time to first token' in capsys.readouterr().out


def test_vllm_runs_the_same_requests_in_a_process_of_its_own(tmp_path, base, monkeypatch, capsys):
    """The child's side of it, with swiftlite's own engine in the place of vLLM's: both have the same API."""
    fake = tmp_path / 'vllm'
    (fake / 'lora').mkdir(parents=True)
    (fake / '__init__.py').write_text('from swiftlite import LLM, SamplingParams\n')
    (fake / 'lora' / '__init__.py').write_text('')
    (fake / 'lora' / 'request.py').write_text('from swiftlite import LoRARequest\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    out = tmp_path / 'numbers.json'
    command = ['bench', 'throughput', '--model', str(base), *SHORT, '--engine', 'vllm', 'swiftlite', '--seed', '3']
    assert main([*command, '--vllm_python', sys.executable, '--ceilings', 'false', '--output', str(out)]) == 0
    theirs, ours = lines_of(out)
    assert (theirs['engine'], ours['engine']) == ('vllm', 'swiftlite')
    assert theirs['startup_seconds'] > 0 and theirs['output_tokens'] == ours['output_tokens']
    ratio = theirs['seconds'] / ours['seconds']
    assert theirs['swiftlite_is_faster_by'] == pytest.approx(ratio, rel=0.02)
    assert vllm_child.MARK not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('--max_output_len 500', "more than the model's 256 tokens"),
        ('--workload chat', '--workload chat has a request of'),
        ('--workload chta', "did you mean 'chat'"),
        ('--workload chat --max_input_len 20', '--max_input_len is about --workload mixed'),
        ('--num_adapters 4', 'workloads with adapters: --workload chat-lora'),
        ('--request_rate 4', "--request_rate is a flag of 'swiftlite bench serve', not of 'throughput'"),
        ('--batch_size 4', "a flag of 'swiftlite bench latency'"),
        ('--top_p 0.9', 'choose nothing with --temperature 0'),
        ('--config_preset qwen2.5-7b', 'stands in place of a model'),
        ('--engine vllm', '--engine vllm needs vLLM, which is not installed here'),
        ('--engine vllm --vllm_python no-such-python', "'no-such-python' is no program"),
    ],
)
def test_mistakes_are_one_sentence(words, said, base, capsys, monkeypatch):
    monkeypatch.setattr(vllm_engine, 'find_spec', lambda name: None)
    assert main(['bench', 'throughput', '--model', str(base), *words.split()]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and '\n' not in err


def test_a_number_of_adapters_sizes_the_engine():
    args = BenchArgs(model_type='tiny-chat', workload=['chat-lora'], num_adapters=3, lora_rank=5)
    assert (args.engine_options()['max_loras'], args.engine_options()['max_lora_rank']) == (3, 5)
    fewer = BenchArgs(model_type='tiny-chat', workload=['chat-lora'], num_adapters=3, max_loras=2)
    assert fewer.engine_options()['max_loras'] == 2
    with pytest.raises(UsageError, match='--max_loras is about adapters'):
        BenchArgs(model_type='tiny-chat', max_loras=2)
    assert BenchArgs(model_type='tiny-chat', max_loras=2, enable_lora=True).engine_options()['max_loras'] == 2
