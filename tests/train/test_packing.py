"""Rows end to end and in packs give the loss and the gradients of each row alone, and no row sees another."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from swiftlite.args.sft import SftArgs
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.registry.families import FAMILIES
from swiftlite.train.model import attention as module
from swiftlite.train.model.attention import NAME, attention, install_attention
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.loss import install_loss
from swiftlite.train.rows.collate import Collator
from swiftlite.train.rows.encoded import EncodedRows
from swiftlite.train.rows.packing import PackedRows, best_fit_decreasing
from swiftlite.train.scale.rehearsal import recompute
from tests.tiny import randomize

WINDOWS = {
    'Qwen2ForCausalLM': {'use_sliding_window': True, 'sliding_window': 4, 'max_window_layers': 1},
    'Qwen3ForCausalLM': {'use_sliding_window': True, 'sliding_window': 4, 'max_window_layers': 1, 'head_dim': 32},
    'MistralForCausalLM': {'sliding_window': 4},
}
CASES = [(native, window) for native in sorted({f.native for f in FAMILIES.values()})
         for window in ((False, True) if native in WINDOWS else (False,))]  # fmt: skip


def tiny(native: str, window: bool = False, implementation: str | None = None) -> torch.nn.Module:
    family = next(f for f in FAMILIES.values() if f.native == native and f.mapping is None)
    settings = {'vocab_size': 64, 'hidden_size': 64, 'intermediate_size': 96, 'num_hidden_layers': 2,
                'num_attention_heads': 4, 'num_key_value_heads': 2, 'rope_theta': 10000.0, 'sliding_window': None,
                **(WINDOWS[native] if window else {})}  # fmt: skip
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family.hf_model_type, **settings), attn_implementation=implementation
    )
    randomize(model, seed=1)
    return model.float()


def rows_of(lengths, seed=0) -> EncodedRows:
    """Random rows whose first third carries no loss."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 64, length).tolist() for length in lengths]
    return EncodedRows.of([(row, [-100] * (len(row) // 3) + row[len(row) // 3 :]) for row in ids])


def best_fit_plainly(lengths, capacity) -> list[int]:
    """Space left in the packs of best-fit decreasing, one row and one pack at a time."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, space in enumerate(spaces) if space >= length]
        if fitting:
            spaces[min(fitting, key=spaces.__getitem__)] -= length
        else:
            spaces.append(max(capacity - length, 0))
    return sorted(spaces)


@pytest.mark.parametrize('seed', range(8))
def test_packs_are_those_of_best_fit_decreasing(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(5, 200))
    lengths = rng.integers(1, capacity + 1 + 3 * (seed % 2), int(rng.integers(1, 400)))
    members, offsets = best_fit_decreasing(lengths, capacity, np.random.default_rng(0))
    assert sorted(members.tolist()) == list(range(len(lengths)))
    packs = [lengths[members[a:b]] for a, b in pairwise(offsets)]
    assert all(pack.sum() <= capacity or len(pack) == 1 for pack in packs)
    assert sorted(max(capacity - int(pack.sum()), 0) for pack in packs) == best_fit_plainly(lengths.tolist(), capacity)


def test_packs_are_drawn_by_seed():
    rows = rows_of([5, 7, 5, 7, 3, 3] * 20)
    found = [PackedRows(rows, 12, seed) for seed in (1, 1, 2)]
    assert found[0].members.tolist() == found[1].members.tolist() != found[2].members.tolist()
    assert sorted(found[0].lengths) == sorted(found[2].lengths)
    assert found[0].line('training data') == 'training data: 120 rows in 50 packs of 12 tokens, 100.0% filled'
    assert '(1 of one longer row)' in PackedRows(rows_of([13, 2]), 12, 0).line('x')


@pytest.mark.parametrize('kernels', [False, True])
@pytest.mark.parametrize('native, window', CASES)
def test_packed_is_unpacked(native, window, kernels):
    """Loss and every gradient, against transformers' own attention on each row alone; padded batches too."""
    data = rows_of([9, 5, 14, 2, 7, 11])
    reference = tiny(native, window, 'sdpa')
    expected = torch.zeros(())
    for ids, labels in (data[i] for i in range(len(data))):
        logits = reference(torch.tensor(ids[None], dtype=torch.long)).logits[0, :-1]
        targets = torch.tensor(labels[1:], dtype=torch.long)
        expected = expected + torch.nn.functional.cross_entropy(logits, targets, reduction='sum', ignore_index=-100)
    expected.backward()
    model = tiny(native, window)
    install_attention(model)
    install_loss(model)
    if kernels:
        install_kernels(model)
    packs = PackedRows(data, 20, seed=0)
    whole = [data[i] for i in range(len(data))]
    for batch in (
        Collator(0, padding_free=True)([packs[i] for i in range(len(packs))]),
        Collator(0, padding_free=True, budget=20)(whole),
        Collator(0)(whole),
    ):
        model.zero_grad()
        loss = sum(model(**part)['loss_sum'] for part in batch['passes'])
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for (name, p), wanted in zip(model.named_parameters(), reference.parameters(), strict=True):
            assert torch.allclose(p.grad, wanted.grad, rtol=1e-4, atol=1e-5 * wanted.grad.abs().max()), name


@pytest.mark.parametrize('kernels', [False, True])
@pytest.mark.parametrize('native, window', CASES)
def test_no_row_sees_another(native, window, kernels):
    """Other tokens in the middle row: the logits of the rows around it stay the same, bit by bit."""
    model = tiny(native, window)
    install_attention(model)
    if kernels:
        install_kernels(model)
    lengths = [6, 9, 7]
    ids = torch.tensor(np.random.default_rng(0).integers(1, 64, (1, sum(lengths))))
    where = {
        'position_ids': torch.cat([torch.arange(n) for n in lengths])[None],
        'cu_seqlens': torch.tensor([0, 6, 15, 22], dtype=torch.int32),
        'lengths': lengths,
        'attention_mask': torch.empty(1, 1, 1, 1),
    }
    with torch.no_grad():
        before = model(ids, **where).logits[0]
        ids[0, 6:15] = (ids[0, 6:15] + 7) % 64
        after = model(ids, **where).logits[0]
        alone = model(ids[:, 15:]).logits[0]
    assert torch.equal(before[:6], after[:6]) and torch.equal(before[15:], after[15:])
    assert not torch.allclose(before[6:15], after[6:15])
    assert torch.allclose(after[15:], alone, atol=1e-4)


def test_text_is_generated_as_before():
    """Left-padded prompts have masks, and a cache is used: the attention of transformers."""
    ids, mask = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    texts = []
    for ours in (False, True):
        model = tiny('MistralForCausalLM', True)
        if ours:
            install_attention(model)
            assert model.config._attn_implementation == NAME
        texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0))
    assert torch.equal(*texts)


def test_recomputed_activations_change_nothing():
    model = tiny('Qwen2ForCausalLM', True)
    install_attention(model)
    install_loss(model)
    data = rows_of([9, 5, 14])
    (batch,) = Collator(0, padding_free=True)([data[i] for i in range(3)])['passes']
    grads = []
    for layers in (0, 1, 2):
        recompute(model, layers)
        model.train().zero_grad()
        model(**batch)['loss_sum'].backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))


def test_kernels_are_called_as_row_by_row(monkeypatch):
    """What torch's kernels get means the same: a window, rows of one length, scale, few key heads."""

    def varlen(q, k, v, starts, starts_k, longest, longest_k, *, scale, window_size, enable_gqa=False):
        assert longest == longest_k == 9 and starts is starts_k and q.dim() == 3
        left, right = window_size
        token = torch.arange(len(q))
        row = torch.bucketize(token, starts[1:], right=True)
        back = token[:, None] - token
        seen = (row[:, None] == row) & (back >= -right) & ((back <= left) | (left < 0))
        scores = torch.einsum('qhd,khd->hqk', q, k.repeat_interleave(2, 1)) * scale
        return torch.einsum(
            'hqk,khd->qhd', scores.masked_fill(~seen, -torch.inf).softmax(-1), v.repeat_interleave(2, 1)
        )

    torch.manual_seed(0)
    for lengths, window in (([5, 9, 2], None), ([5, 9, 2], 3), ([256, 256], 300)):
        q, k, v = (torch.randn(1, heads, sum(lengths), 8) for heads in (4, 2, 2))
        starts = torch.tensor([0, *lengths]).cumsum(0).int()
        flags = {'scaling': 0.3, 'sliding_window': window, 'cu_seqlens': starts, 'lengths': lengths}
        plain, _ = attention(None, q, k, v, None, **flags)
        with monkeypatch.context() as patch:
            patch.setattr(module, 'fits_varlen', lambda _: True)
            patch.setattr(module, 'varlen_attn', varlen)
            patch.setattr(module, 'by_row', None)
            found, _ = attention(None, q, k, v, None, **flags)
        assert plain.shape == found.shape == (1, sum(lengths), 4, 8)
        assert torch.allclose(plain, found, atol=1e-5)


@pytest.mark.parametrize('flags', [{'sft_type': 'full'}, {'sft_type': 'lora', 'eval_batch_size': 1}])
def test_runs_with_and_without_padding_agree(sft, flags, data):
    """The same losses whether rows are padded or not, also those held out; packs are other batches."""
    flags = {'val_dataset': [f'{data}#5'], 'learning_rate': 1e-3, 'eval_steps': 2, **flags}
    runs = [sft(padding_free=free, **flags) for free in (True, False)]
    assert runs[0]['train_loss'] == pytest.approx(runs[1]['train_loss'], abs=1e-5)
    assert runs[0]['best_metric'] == pytest.approx(runs[1]['best_metric'], abs=1e-5)


def test_packs_are_the_rows_of_a_step(sft, capsys):
    """22 rows in packs of about two rows: as many tokens, fewer steps; the held-out loss of no training is the same."""
    plain = sft(max_length=200, num_train_epochs=2, batch_size=2, gradient_accumulation_steps=1)
    packed = sft(max_length=200, num_train_epochs=2, batch_size=2, gradient_accumulation_steps=1, packing=True)
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if ' packs of ' in line]
    packs = int(line.split(' rows in ')[1].split()[0])
    assert line.startswith('training data: 22 rows in') and packs < 22
    assert packed['tokens'] == plain['tokens']
    assert (plain['global_step'], packed['global_step']) == (22, 2 * -(-packs // 2))
    assert 'steps of 2 x 1 packs' in out


def test_packs_go_on_where_they_stopped(sft):
    """An interrupted run in packs is the whole one, bit by bit: the same packs, in the same order."""
    flags = {'packing': True, 'max_length': 200, 'batch_size': 2, 'num_train_epochs': 2, 'save_steps': 2,
             'gradient_accumulation_steps': 1, 'save_total_limit': 9, 'lora_dropout': 0.3}  # fmt: skip
    whole = sft(**flags)
    stopped = Path(whole['last_model_checkpoint']).parent / f'checkpoint-{(whole["global_step"] - 1) // 2 * 2}'
    resumed = sft(**flags, resume_from_checkpoint=str(stopped))
    left, right = (load_file(Path(s['last_model_checkpoint']) / 'adapter_model.safetensors') for s in (whole, resumed))
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize('flags, words', [
    ({'packing': True, 'max_length': -1}, '--packing true with --max_length -1 needs --packing_length'),
    ({'packing': True, 'packing_length': 512}, '--packing_length 512 is below --max_length 2048.*: give .*_length 512'),
    ({'packing_length': 100}, '--packing_length needs --packing true'),
    ({'packing': True, 'padding_free': False}, '--packing true and --padding_free false exclude each other'),
    ({'packing': True, 'group_by_length': True}, '--packing true and --group_by_length true exclude each other'),
])  # fmt: skip
def test_flags_that_exclude_each_other(flags, words):
    with pytest.raises(UsageError, match=words):
        SftArgs(model_type='tiny-chat', dataset=['x'], **flags)


@pytest.mark.parametrize('change', [
    {'attn_logit_softcapping': 30.0},
    {'rope_parameters': {'rope_type': 'dynamic', 'factor': 2.0, 'rope_theta': 10000.0}},
])  # fmt: skip
def test_attention_of_other_kinds_is_refused(change):
    model = tiny('LlamaForCausalLM')
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(SwiftliteError, match=r"'(attn_logit_softcapping|dynamic)'.* is not supported"):
        install_attention(model)
