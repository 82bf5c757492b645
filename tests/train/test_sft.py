"""A run from the command's arguments to the folder it leaves behind."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import swiftlite
from swiftlite.checkpoint import fingerprint, read_adapter, read_config
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.registry.resolve import resolve_model
from swiftlite.train.output import claim
from swiftlite.train.trainer import SftTrainer
from swiftlite.train.watching import callbacks, plots, reports
from tests.qwen_v1 import CONFIG, write_qwen_v1
from tests.tiny import tiny_qwen2


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'logging.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('packing', [False, True])
def test_rows_beyond_the_positions_of_the_model_are_said(sft, monkeypatch, capsys, packing):
    flags = {'max_steps': 1, 'packing': packing}
    sft(**flags)
    assert 'positions of the model' not in capsys.readouterr().out
    monkeypatch.setattr('swiftlite.train.sft.positions', lambda config: 100)
    sft(**flags)
    assert 'warning: 3 rows are longer than the 100 positions of the model, up to 132 tokens' in capsys.readouterr().out


def test_what_a_lora_run_leaves(sft, checkpoint, data, capsys):
    summary = sft(
        draw=True, dataset_test_ratio=0.1, report_to=['tensorboard'], lora_target_modules=['ALL'], logging_steps=2
    )
    last = Path(summary['last_model_checkpoint'])
    folder = last.parent
    assert (folder.parent.name, folder.name[:3], last.name) == ('tiny', 'v0-', 'checkpoint-3')
    assert len(read_adapter(last, read_config(checkpoint)).modules) == 14
    assert len(list((folder / 'runs').iterdir())) == 1
    for name in ('train_loss', 'train_token_acc', 'train_learning_rate', 'train_tokens_per_second', 'eval_loss'):
        assert (folder / 'images' / f'{name}.png').stat().st_size > 5000
    saved = json.loads((last / 'sft_args.json').read_text())
    assert saved == json.loads((folder / 'sft_args.json').read_text())
    assert saved['model_id_or_path'] == str(checkpoint)
    assert saved['base_fingerprint'] == fingerprint(checkpoint)
    assert (saved['sft_type'], saved['template_type'], saved['dtype']) == ('lora', 'tiny-chat', 'fp32')
    assert saved['dataset'] == [str(data)]
    assert saved['swiftlite_version'] == swiftlite.__version__
    modes = {(last / name).stat().st_mode for name in ('adapter_model.safetensors', 'adapter_config.json')}
    assert len(modes) == 1
    source = resolve_model(ckpt_dir=str(last))
    assert (source.adapter, source.model_id_or_path, source.template) == (str(last), str(checkpoint), 'tiny-chat')
    *lines, end = log_of(folder)
    train = [line for line in lines if 'loss' in line]
    assert [line['global_step/max_steps'] for line in train] == ['1/3', '2/3', '3/3']
    assert train[0].keys() >= {'loss', 'token_acc', 'grad_norm', 'learning_rate', 'epoch', 'percentage', 'elapsed_time',
                               'remaining_time', 'memory(GiB)', 'train_speed(iter/s)', 'tokens/s'}  # fmt: skip
    assert [line['global_step/max_steps'] for line in lines if 'eval_loss' in line] == ['3/3']
    assert end['last_model_checkpoint'] == end['best_model_checkpoint'] == str(last)
    out = capsys.readouterr().out
    assert 'training data: 19 rows kept, 0 dropped, 0 truncated' in out, 'two say the same as the held-out one'
    assert 'held-out data: 1 rows kept' in out
    for command in ('infer --ckpt_dir', 'export --merge_lora', 'deploy --ckpt_dir'):
        assert command in out.replace(f'export --ckpt_dir {last} --merge_lora true', 'export --merge_lora')


def test_the_adapter_is_what_was_trained(sft, checkpoint):
    """Loaded by peft, the saved adapter moves the logits; its weights are fp32."""
    last = sft()['last_model_checkpoint']
    assert {tensor.dtype for tensor in load_file(f'{last}/adapter_model.safetensors').values()} == {torch.float32}
    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = plain(ids).logits
        assert (PeftModel.from_pretrained(plain, last)(ids).logits - before).abs().max() > 1e-3


def test_full_weights_are_saved_as_the_base_is(sft, checkpoint, tmp_path):
    """A bf16 base gives a bf16 checkpoint with its tokenizer; its own ids and settings stay."""
    half = tmp_path / 'half'
    half.mkdir()
    for file in checkpoint.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    config = json.loads((checkpoint / 'config.json').read_text())
    (half / 'config.json').write_text(json.dumps({**config, 'dtype': 'bfloat16'}))
    weights = {name: tensor.bfloat16() for name, tensor in load_file(half / 'model.safetensors').items()}
    save_file(weights, half / 'model.safetensors', metadata={'format': 'pt'})
    last = Path(sft(sft_type='full', model_id_or_path=str(half))['last_model_checkpoint'])
    saved = load_file(last / 'model.safetensors')
    assert saved.keys() == weights.keys()
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    master = load_file(last / 'master_weights.safetensors')
    assert all(torch.equal(saved[name], tensor.bfloat16()) for name, tensor in master.items())
    found = json.loads((last / 'config.json').read_text())
    assert (found['dtype'], found['use_cache'], found['eos_token_id']) == ('bfloat16', True, 8189)
    assert AutoTokenizer.from_pretrained(last).encode('hi') == AutoTokenizer.from_pretrained(checkpoint).encode('hi')
    assert resolve_model(ckpt_dir=str(last)).adapter is None


def test_best_and_last_checkpoints_are_kept(sft):
    summary = sft(dataset_test_ratio=0.1, num_train_epochs=6, eval_steps=2, learning_rate=5e-2)
    folder = Path(summary['last_model_checkpoint']).parent
    losses = {int(line['global_step/max_steps'].split('/')[0]): line['eval_loss']
              for line in log_of(folder) if 'eval_loss' in line}  # fmt: skip
    best = min(losses, key=losses.__getitem__)
    kept = {int(path.name.split('-')[1]) for path in folder.glob('checkpoint-*')}
    assert best in kept and max(losses) in kept and len(kept) <= 2
    assert summary['best_model_checkpoint'] == str(folder / f'checkpoint-{best}')


def test_versions_count_up_and_can_be_off(sft, tmp_path):
    runs = [Path(sft(max_steps=1)['last_model_checkpoint']).parent.name for _ in range(2)]
    assert [name[:3] for name in runs] == ['v0-', 'v1-']
    plain = sft(max_steps=1, add_output_dir_suffix=False, output_dir=str(tmp_path / 'here'))
    assert plain['last_model_checkpoint'] == str(tmp_path / 'here' / 'checkpoint-1')
    with pytest.raises(UsageError, match='holds another run'):
        sft(max_steps=1, add_output_dir_suffix=False, output_dir=str(tmp_path / 'here'))


def test_two_runs_do_not_share_a_folder(sft, tmp_path):
    folder = tmp_path / 'both'
    folder.mkdir()
    with claim(folder), pytest.raises(UsageError, match='another run writes into'):
        sft(max_steps=1, add_output_dir_suffix=False, output_dir=str(folder))
    assert not list(folder.iterdir())
    assert sft(max_steps=1, add_output_dir_suffix=False, output_dir=str(folder))['global_step'] == 1


def test_self_cognition_is_learnt_in_both_languages(sft):
    summary = sft(
        dataset=['self-cognition#40'],
        model_name=['小黄', 'Xiao Huang'],
        model_author=['魔搭', 'ModelScope'],
        max_steps=2,
    )
    assert summary['global_step'] == 2
    with pytest.raises(UsageError, match='needs --model_name and --model_author'):
        sft(dataset=['self-cognition'])


def test_defective_rows_are_reported_before_training(sft, data, capsys):
    with data.open('a') as stream:
        stream.write('\n{oops\n{"query": "x"}\n' + json.dumps({'query': 'long ' * 500, 'response': 'x'}) + '\n')
    sft(max_steps=1, max_length=200)
    out = capsys.readouterr().out
    assert 'training data: 22 rows kept, 3 dropped, 0 truncated' in out
    assert f'dropped 1 x broken JSON (first: {data}, line 23)' in out
    assert f'dropped 1 x longer than --max_length 200 (first: {data}, line 25)' in out


def test_rows_are_shown_before_the_model_is_loaded(sft, monkeypatch, capsys):
    monkeypatch.setattr('swiftlite.train.sft.make_model', None)
    assert sft(dump_prompt=2) == {'rows_shown': 2}
    assert '2 rows shown, nothing trained' in capsys.readouterr().out


def test_no_rows_left(sft):
    with pytest.raises(SwiftliteError, match='no rows are left to train on: 22 x longer than --max_length 3'):
        sft(max_length=3)


def test_nothing_to_do_and_nothing_held_out(sft, data, tmp_path):
    with pytest.raises(UsageError, match='leaves nothing to do'):
        sft(num_train_epochs=0)
    (tmp_path / 'bad.jsonl').write_text('{"query": 1}')
    assert sft(max_steps=1, val_dataset=[str(tmp_path / 'bad.jsonl')])['best_metric'] is None


def test_a_quantized_base_is_refused(sft, checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((checkpoint / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'quantization_config': {'bits': 4}}))
    with pytest.raises(SwiftliteError, match=r'has quantized weights.*use the unquantized model'):
        sft(model_id_or_path=str(tmp_path))


def test_nan_stops_the_run(sft):
    with pytest.raises(SwiftliteError, match=r'the loss is (nan|inf) at step \d+: lower --learning_rate'):
        sft(sft_type='full', learning_rate=1e30, max_grad_norm=0.0, num_train_epochs=3)


def test_out_of_memory_is_advice(sft, monkeypatch):
    def train(self, **_):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(SftTrainer, 'train', train)
    with pytest.raises(SwiftliteError, match=r'out of GPU memory at step 0: lower --batch_size \(now 4\)'):
        sft()


def test_a_full_disk_is_one_sentence(sft, monkeypatch):
    def save(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(SftTrainer, '_save', save)
    with pytest.raises(SwiftliteError, match=r'cannot be written: .*No space left on device'):
        sft(max_steps=1)


def test_a_disk_that_fills_up_under_the_optimizer_is_one_sentence(sft, monkeypatch):
    def save(self, folder):
        torch.save({'moments': torch.zeros(100_000)}, '/dev/full')

    monkeypatch.setattr(SftTrainer, '_save_optimizer_and_scheduler', save)
    with pytest.raises(SwiftliteError, match=r'a checkpoint in .* cannot be written: no space left on the device'):
        sft(max_steps=1)


def test_ctrl_c_says_how_to_go_on(sft, monkeypatch, tmp_path, capsys):
    """The command it prints can be pasted, also where the folder has a space in its name."""
    output = tmp_path / 'my runs'

    def stop(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.RunLog, 'on_step_end', stop)
        with pytest.raises(KeyboardInterrupt):
            sft(output_dir=str(output), save_steps=2, num_train_epochs=2)
        words = shlex.split(capsys.readouterr().out.splitlines()[-1])
        assert words[:4] == ['stopped', 'at', 'step', '3;']
        assert Path(words[-1]).name == 'checkpoint-2' and Path(words[-1]).is_dir()
        with pytest.raises(KeyboardInterrupt):
            sft(output_dir=str(output))
        assert 'before the first checkpoint' in capsys.readouterr().out
    sft(output_dir=str(output), save_steps=2, num_train_epochs=2, resume_from_checkpoint=words[-1])
    infer = shlex.split(capsys.readouterr().out.splitlines()[-3])
    assert infer[:3] == ['swiftlite', 'infer', '--ckpt_dir'] and Path(infer[3]).is_dir() and len(infer) == 4


def test_fp16_needs_a_gpu(sft, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UsageError, match='--dtype fp16 trains on a GPU only'):
        sft(dtype='fp16')


def test_resume_is_refused_for_other_models_and_kinds(sft, tmp_path, checkpoint):
    last = sft(max_steps=1)['last_model_checkpoint']
    with pytest.raises(UsageError, match='was trained with --sft_type lora'):
        sft(resume_from_checkpoint=last, sft_type='full')
    with pytest.raises(UsageError, match='was trained with --lora_rank 8'):
        sft(resume_from_checkpoint=last, lora_rank=4)
    with pytest.raises(UsageError, match='was trained with --lora_target_modules DEFAULT'):
        sft(resume_from_checkpoint=last, lora_target_modules=['ALL'])
    with pytest.raises(UsageError, match='was trained with --lora_alpha 32'):
        sft(resume_from_checkpoint=last, lora_alpha=16)
    with pytest.raises(UsageError, match='was trained with --use_rslora False'):
        sft(resume_from_checkpoint=last, use_rslora=True)
    with pytest.raises(UsageError, match='has done 1 of 1 steps, nothing is left'):
        sft(resume_from_checkpoint=last, max_steps=1)
    with pytest.raises(UsageError, match='is no checkpoint folder'):
        sft(resume_from_checkpoint=str(tmp_path))
    other = tiny_qwen2(tmp_path / 'other', seed=4, vocab_size=8192, hidden_size=32, intermediate_size=48)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (other / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(UsageError, match='was trained on another base model'):
        sft(resume_from_checkpoint=last, model_id_or_path=str(other))


@pytest.mark.parametrize('name', ['adapter_model.safetensors', 'optimizer.pt', 'rng_state.pth'])
def test_a_damaged_checkpoint_is_not_resumed(sft, name):
    last = Path(sft(max_steps=1)['last_model_checkpoint'])
    file = last / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SwiftliteError, match=rf'{name} is damaged'):
        sft(resume_from_checkpoint=str(last), max_steps=2)
    (last / 'optimizer.pt').unlink()
    with pytest.raises(SwiftliteError, match=r'has no optimizer\.pt'):
        sft(resume_from_checkpoint=str(last), max_steps=2)


def test_lora_target_modules(sft):
    last = sft(max_steps=1, lora_target_modules=['q_proj', 'mlp.down_proj'], lora_rank=3, use_rslora=True)
    adapter = read_adapter(last['last_model_checkpoint'])
    assert {name.split('.', 3)[3] for name in adapter.modules} == {'self_attn.q_proj', 'mlp.down_proj'}
    assert {(w.rank, round(w.scaling, 3)) for w in adapter.modules.values()} == {(3, round(32 / 3**0.5, 3))}
    with pytest.raises(UsageError, match=r"--lora_target_modules 'q_prj' is no linear layer; .*did you mean 'q_proj'"):
        sft(lora_target_modules=['q_prj'])


def test_absent_extras_are_one_sentence(sft, monkeypatch, capsys):
    def absent(*_):
        raise ImportError

    monkeypatch.setattr(plots, 'draw', absent)
    monkeypatch.setattr(reports, 'TensorBoard', absent)
    sft(max_steps=1, report_to=['tensorboard'], draw=True)
    out = capsys.readouterr().out
    assert out.count("pip install 'swiftlite[plots]'") == 2


def test_qwen_v1_trains_through_its_native_conversion(sft, tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFTLITE_CACHE', str(tmp_path / 'cache'))
    for key, value in (('vocab_size', 512), ('eos_token_id', 1), ('pad_token_id', 1)):
        monkeypatch.setitem(CONFIG, key, value)
    base = tmp_path / 'Qwen-7B-Chat'
    write_qwen_v1(base)
    import base64

    (base / 'qwen.tiktoken').write_text('\n'.join(f'{base64.b64encode(bytes([b])).decode()} {b}' for b in range(256)))
    summary = sft(model_id_or_path=str(base), template_type=None)
    last = Path(summary['last_model_checkpoint'])
    assert last.parent.parent.name == 'qwen-7b-chat'
    assert json.loads((last / 'sft_args.json').read_text())['template_type'] == 'qwen'
    assert 'model.layers.0.self_attn.q_proj' in read_adapter(last, read_config(base)).modules


def test_progress_bar_on_a_terminal(sft, monkeypatch, capsys):
    monkeypatch.setattr(callbacks.sys.stderr, 'isatty', lambda: True, raising=False)
    sft(dataset_test_ratio=0.1)
    captured = capsys.readouterr()
    assert 'eval  step 3/3' in captured.err
    assert 'train step' not in captured.out


@pytest.mark.parametrize(('seconds', 'text'), [(5, '5s'), (65, '1m 5s'), (3600, '1h 0m 0s')])
def test_duration(seconds, text):
    assert callbacks.duration(seconds) == text


def test_smoothing_is_unbiased():
    assert plots.smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    assert plots.smooth([0.0, 1.0])[1] == pytest.approx(0.1 / 0.19)
