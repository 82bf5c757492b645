"""The chunked loss against torch's cross entropy over all logits."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from swiftlite.train.model import loss as module
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.loss import install_loss, linear_cross_entropy
from swiftlite.train.rows.collate import Collator
from swiftlite.train.rows.encoded import EncodedRows


@pytest.mark.parametrize('chunk', [40, 1 << 20])
@pytest.mark.parametrize('frozen', [False, True])
def test_loss_and_gradients(monkeypatch, chunk, frozen):
    monkeypatch.setattr(module, 'CHUNK', chunk)  # 4 rows at a time
    torch.manual_seed(0)
    head = nn.Linear(6, 10, bias=False).requires_grad_(not frozen)
    hidden, targets = torch.randn(11, 6, requires_grad=True), torch.randint(10, (11,))
    loss, correct = linear_cross_entropy(hidden, head, targets)
    (loss * 0.3).backward()
    found = hidden.grad.clone(), None if frozen else head.weight.grad.clone()
    hidden.grad = head.weight.grad = None
    logits = head(hidden)
    wanted = nn.functional.cross_entropy(logits, targets, reduction='sum')
    (wanted * 0.3).backward()
    assert torch.allclose(loss, wanted)
    assert torch.allclose(found[0], hidden.grad, atol=1e-6)
    assert frozen or torch.allclose(found[1], head.weight.grad, atol=1e-6)
    assert correct == (logits.argmax(-1) == targets).sum()


def test_autocast_computes_products_in_its_dtype():
    torch.manual_seed(0)
    head = nn.Linear(64, 100, bias=False)
    hidden, targets = torch.randn(20, 64, requires_grad=True), torch.randint(100, (20,))
    exact, _ = linear_cross_entropy(hidden, head, targets)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough, _ = linear_cross_entropy(hidden, head, targets)
    assert exact != rough
    assert torch.allclose(exact, rough, rtol=1e-2)
    rough.backward()
    assert head.weight.grad.dtype == torch.float32


def test_no_gradients_are_computed_in_evaluation():
    head = nn.Linear(4, 5, bias=False)
    with torch.no_grad():
        loss, _ = linear_cross_entropy(torch.randn(3, 4), head, torch.tensor([0, 1, 2]))
    assert loss.grad_fn is None


def test_padded_batch_equals_the_models_own_loss(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    rows = [([5, 6, 7, 8], [-100, -100, 7, 8]), ([9, 10], [-100, 10])]
    wanted = sum(
        model(torch.tensor([ids]), labels=torch.tensor([labels])).loss * (sum(x != -100 for x in labels))
        for ids, labels in rows
    )
    data = EncodedRows.of(rows)
    (batch,) = Collator(0)([data[0], data[1]])['passes']
    install_loss(model)
    assert torch.allclose(model(**batch)['loss_sum'], wanted, rtol=1e-5)
    assert model(batch['input_ids']).logits.shape == (2, 4, 8192)  # without targets: as before


@pytest.mark.parametrize('kernels', [False, True])
def test_an_output_layer_that_peft_trains_whole(checkpoint, monkeypatch, kernels):
    """Its copy makes the logits and gets the gradient, and they are cut into chunks, too."""
    from peft import LoraConfig, get_peft_model

    def make(ours: bool):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint, tie_word_embeddings=False))
        if ours:
            install_loss(model)
        model = get_peft_model(model, LoraConfig(r=2, target_modules=['q_proj'], modules_to_save=['lm_head']))
        if ours and kernels:
            install_kernels(model)
        for name, p in model.named_parameters():
            if 'modules_to_save' in name:
                p.data += torch.linspace(-0.1, 0.1, p.numel()).view_as(p)
        return model

    ids, labels = [5, 6, 7, 8, 9], [-100, -100, 7, 8, 9]
    theirs, ours = make(False), make(True)
    wanted = theirs(torch.tensor([ids]), labels=torch.tensor([labels])).loss * 3
    wanted.backward()
    monkeypatch.setattr(module, 'CHUNK', 8192 * 2)
    (batch,) = Collator(0)([EncodedRows.of([(ids, labels)])[0]])['passes']
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, 'cross_entropy', None)  # that of all logits
        loss = ours(**batch)['loss_sum']
    loss.backward()
    assert torch.allclose(loss, wanted, rtol=1e-5)
    assert torch.allclose(ours(batch['input_ids']).logits, theirs(batch['input_ids']).logits, atol=1e-5)
    for (name, p), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if p.requires_grad and 'lora_A' not in name:
            assert p.grad.abs().sum() > 0 and torch.allclose(p.grad, other.grad, atol=1e-5), name


@pytest.mark.parametrize('tokens', [3, 5000])
def test_the_number_of_tokens_is_not_rounded(tokens):
    """1 / 3 in bf16 is 0.2 % off, and all gradients would be."""
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 40, bias=False).to(torch.bfloat16)
    hidden = torch.randn(tokens, 8, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(40, (tokens,))
    loss, _ = linear_cross_entropy(hidden, head, targets)
    (whole,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (third,) = torch.autograd.grad(loss * (1 / 3), hidden)
    assert third.dtype == torch.bfloat16
    assert float(3 * third.double().norm() / whole.double().norm()) == pytest.approx(1, abs=5e-4)
