"""What a training needs is estimated well, fits into what there is, and is found out before the first step."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from swiftlite.args.sft import SftArgs
from swiftlite.cli.parse import parse
from swiftlite.errors import SwiftliteError
from swiftlite.train import setup
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.make import load_model
from swiftlite.train.rows.collate import Collator
from swiftlite.train.scale import rehearsal as module
from swiftlite.train.scale.memory import (
    USABLE,
    Estimate,
    available_memory,
    estimate,
    gpu_errors,
    most_tokens_of_a_pass,
    saved_bytes,
    size,
)
from swiftlite.train.scale.rehearsal import Rehearsal, recompute
from tests.tiny import tiny_qwen2

LAYERS = 5


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return str(tiny_qwen2(tmp_path_factory.mktemp('base') / 'tiny', num_hidden_layers=LAYERS))


def kept(model, tokens: int) -> int:
    """Bytes autograd keeps of a pass of one row."""
    row = np.arange(tokens) % 50, np.full(tokens, -100)
    (batch,) = Collator(0, padding_free=True)([row])['passes']
    with saved_bytes(model) as seen:
        model.train()(**batch)
    return sum(seen.values())


@pytest.mark.parametrize('lora, kernels', [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize('count', [0, 2, LAYERS])
def test_activations_are_those_that_autograd_keeps(folder, lora, kernels, count):
    """The estimate is a line through two short rows of one layer; the truth is a long one through all."""
    network = load_model(folder, torch.float32)
    if lora:
        network = get_peft_model(network, LoraConfig(r=4, lora_dropout=0.1, target_modules=['q_proj', 'down_proj']))
    if kernels:
        install_kernels(network)
    tokens = 3000
    found = estimate(network, tokens, torch.float32)
    recompute(network, count)
    wanted = (found.kept * (LAYERS - count) + found.entered * count) * tokens
    assert kept(network, tokens) == pytest.approx(wanted, rel=0.1 if count < LAYERS else 0.5)
    assert found.gradients == 4 * sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_as_few_layers_as_fit_are_computed_twice():
    whole = Estimate(1000, 10, 20, layers=10, tokens=10**6, kept=4000, copied=0, head=0, vocabulary=8, entered=100)
    assert whole.fitting(10**12).recomputed == 0
    found = whole.fitting(30 * 10**9)
    assert 0 < found.recomputed < 10 and found.total <= 0.92 * 30 * 10**9
    assert replace(found, recomputed=found.recomputed - 1).total > 0.92 * 30 * 10**9
    assert whole.fitting(10**9).recomputed == 10
    room = whole.most_tokens(30 * 10**9)
    at_most = replace(whole, recomputed=10, tokens=room)
    assert 0.98 < at_most.total / (0.92 * 30 * 10**9) <= 1
    assert whole.most_tokens(10) == 0


@pytest.mark.parametrize('budget, free, padded', [(None, 24, 30), (20, 20, 20), (5, 10, 10)])
def test_largest_pass(budget, free, padded):
    lengths = np.array([3, 10, 8, 1, 6])
    assert most_tokens_of_a_pass(lengths, 3, budget, True) == free
    assert most_tokens_of_a_pass(lengths, 3, budget, False) == padded


def test_sizes():
    assert (size(3 << 20), size(15.26 * 2**30)) == ('3 MiB', '15.3 GiB')


def weights(summary: dict) -> dict[str, torch.Tensor]:
    return load_file(Path(summary['last_model_checkpoint']) / 'adapter_model.safetensors')


@pytest.fixture
def unrehearsed(monkeypatch):
    """On a GPU the largest pass is not run first: what it takes there is not what a test says there is."""
    monkeypatch.setattr(Rehearsal, 'on_train_begin', lambda *_, **__: None)


@pytest.mark.usefixtures('unrehearsed')
def test_the_choice_is_made_from_the_memory_there_is(sft, monkeypatch, capsys):
    """No layer, one or both: the same losses and weights, with dropout."""
    needed, first = [], Estimate.fitting
    monkeypatch.setattr(Estimate, 'fitting', lambda self, room: needed.append(first(self, room)) or needed[-1])
    runs, rooms = [], [1 << 40]
    for wanted in ('nothing is', '1 of 2 layers are', '2 of 2 layers are'):
        monkeypatch.setattr(module, 'available_memory', lambda _: rooms[-1])
        runs.append(weights(sft(lora_dropout=0.3, batch_size=16, gradient_accumulation_steps=1, max_steps=2)))
        needs = needed[-1]
        held = 0 if torch.cuda.is_available() else needs.weights  # what is counted as free beside what is held
        rooms.append(int((replace(needs, recomputed=needs.recomputed + 1).total + 100) / USABLE) - held)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith('memory:')]
        assert f'; {wanted} computed twice' in line, line
    assert all(torch.equal(runs[0][name], other[name]) for other in runs[1:] for name in other)


@pytest.mark.usefixtures('unrehearsed')
@pytest.mark.parametrize('wanted', [True, False])
def test_a_choice_that_is_given_is_kept(sft, monkeypatch, capsys, wanted):
    monkeypatch.setattr(module, 'available_memory', lambda _: (1 << 40) if wanted else 1)
    sft(gradient_checkpointing=wanted, max_steps=1)
    assert ('2 of 2 layers are' if wanted else 'nothing is') + ' computed twice' in capsys.readouterr().out


def test_auto_can_be_typed():
    words = ['--model_type', 'tiny-chat', '--dataset', 'x', '--gradient_checkpointing']
    assert [parse(SftArgs, [*words, text], 'sft').gradient_checkpointing for text in ('auto', 'true', 'no')] == [
        None,
        True,
        False,
    ]


def first_line(summary: dict) -> dict:
    return json.loads((Path(summary['last_model_checkpoint']).parent / 'logging.jsonl').read_text().splitlines()[0])


def rehearse(self, *args, **_):
    self.rehearse()


def test_a_rehearsal_leaves_no_trace(sft, monkeypatch, capsys):
    flags = {'lora_dropout': 0.3, 'max_steps': 2, 'num_train_epochs': 2}
    plain = sft(**flags)
    seen = []
    monkeypatch.setattr(Rehearsal, 'on_train_begin', rehearse)
    monkeypatch.setattr(module, 'peak_memory', lambda _: seen.append(1) or 5 << 20)
    again = sft(**flags)
    assert seen and 'largest pass: ' in capsys.readouterr().out
    left, right = weights(plain), weights(again)
    assert all(torch.equal(left[name], right[name]) for name in left)
    logs = [
        (Path(r['last_model_checkpoint']).parent / 'logging.jsonl').read_text().splitlines() for r in (plain, again)
    ]
    assert json.loads(logs[0][0])['token_acc'] == json.loads(logs[1][0])['token_acc']
    assert plain['tokens'] == again['tokens']


def test_more_layers_are_computed_twice_where_the_largest_pass_does_not_fit(sft, monkeypatch, capsys):
    peaks = iter([1 << 60, 1 << 60, 1 << 20])
    monkeypatch.setattr(Rehearsal, 'on_train_begin', rehearse)
    monkeypatch.setattr(module, 'peak_memory', lambda _: next(peaks))
    sft(max_steps=1)
    assert '2 of 2 layers twice' in capsys.readouterr().out


def test_what_never_fits_is_said_before_the_first_step(sft, monkeypatch):
    monkeypatch.setattr(Rehearsal, 'on_train_begin', rehearse)
    monkeypatch.setattr(module, 'peak_memory', lambda _: 1 << 60)
    with pytest.raises(
        SwiftliteError, match=r'step 0: lower --batch_size \(now 4\) or --max_length \(now 2048\), or keep'
    ):
        sft()
    with pytest.raises(SwiftliteError, match=r'or add --gradient_checkpointing true, or train a LoRA .*weights \+ '):
        sft(gradient_checkpointing=False, sft_type='full')


def test_weights_that_do_not_fit_are_one_sentence(sft, monkeypatch):
    def move(*_, **__):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(setup, 'SftTrainer', move)
    with pytest.raises(
        SwiftliteError, match=r'the weights alone are 1 MiB: keep the base in 4 bits \(--quan.*--fsdp full_shard'
    ):
        sft()
    with pytest.raises(
        SwiftliteError, match=r'the weights alone are 1 MiB: train a LoRA \(--sft_type lora\), or share'
    ):
        sft(sft_type='full')


def test_a_model_that_does_not_fit_while_it_is_read_is_one_sentence(sft, monkeypatch):
    """Four bits and PiSSA are made on the GPU, before anything is known of memory."""
    errors = [
        RuntimeError('CUDA error: out of memory'),
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB'),
    ]

    def read(*_, **__):
        raise errors.pop()

    monkeypatch.setattr('transformers.AutoModelForCausalLM.from_pretrained', read)
    with pytest.raises(SwiftliteError, match=r'^out of GPU memory while the model is made ready: keep the base in 4'):
        sft()
    with pytest.raises(
        SwiftliteError, match=r'ready: start the adapter without a fac.*\(--init_lora_weights true\), or'
    ):
        sft(init_lora_weights='pissa')


def test_processes_of_a_machine_share_its_memory(monkeypatch):
    alone = available_memory(torch.device('cpu'))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert available_memory(torch.device('cpu')) == pytest.approx(alone / 4, rel=0.2)


@pytest.mark.parametrize(
    'said',
    [
        'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
        "NCCL error: Call to CUDA function failed. Last error:\nCuda failure 2 'out of memory'",
        'CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call',
    ],
)
def test_a_full_gpu_has_many_words(sft, monkeypatch, said):
    """Other libraries raise errors of their own, the first of them where another process has taken the GPU."""

    def fail(*_, **__):
        raise RuntimeError(said)

    with monkeypatch.context() as patch:
        patch.setattr(setup.SftTrainer, 'compute_loss', fail)
        with pytest.raises(SwiftliteError, match=r'^out of GPU memory at step 0: lower --batch_size'):
            sft()
    monkeypatch.setattr(setup, 'SftTrainer', fail)
    with pytest.raises(SwiftliteError, match=r'the weights alone are 1 MiB: .*or a GPU that nothing else uses$'):
        sft()


def test_other_errors_are_not_of_memory():
    with pytest.raises(RuntimeError, match='shape') as caught, gpu_errors():
        raise RuntimeError('the shape is wrong')
    assert not isinstance(caught.value, torch.OutOfMemoryError)
