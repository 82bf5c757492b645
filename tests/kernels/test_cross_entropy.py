import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.gradients import exact

# what rounding of logits to the dtype leaves; the gradient is rounded once more
TOLERANCE = {torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def draw(target, rows, vocab, dtype, strided):
    wide = torch.randn(rows, vocab + (5 if strided else 0), device=target.device).mul(4).to(dtype)
    return wide[:, :vocab], torch.randint(vocab, (rows,), device=target.device)


def run(target, logits, targets, **options):
    losses = torch.full(targets.shape, float('nan'), device=target.device)
    correct = torch.zeros(targets.shape, dtype=torch.bool, device=target.device)
    target.ops('cross_entropy').cross_entropy(losses, correct, logits, targets, **options)
    return losses, correct


@given(
    rows=st.integers(1, 6), vocab=st.sampled_from([1, 2, 50, 1024, 20001]), strided=st.booleans(),
    softcap=st.sampled_from([0.0, 5.0]), weighted=st.booleans(), ignored=st.integers(0, 63), dtype=st.integers(0, 2),
)  # fmt: skip
def test_losses_and_gradient(target, rows, vocab, strided, softcap, weighted, ignored, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    logits, targets = draw(target, rows, vocab, dtype, strided)
    targets[[i for i in range(rows) if ignored >> i & 1]] = -100
    weights = torch.rand(rows, device=target.device) * 3 if weighted else None

    def formula(x):
        x = softcap * torch.tanh(x / softcap) if softcap else x
        losses = F.cross_entropy(x, targets.cpu(), reduction='none')
        return losses if weights is None else losses * weights.double().cpu()

    (wanted,), (grad,) = exact(formula, [logits], [torch.ones(rows)])
    largest = logits.float().argmax(-1)
    plain, again = run(target, logits.clone(), targets, weights=weights, softcap=softcap, gradient=False)
    losses, correct = run(target, logits, targets, weights=weights, softcap=softcap)
    assert torch.equal(correct, largest == targets)
    assert torch.equal(correct, again)
    assert torch.equal(losses, plain)
    assert torch.allclose(losses.double().cpu(), wanted, rtol=1e-5, atol=1e-5)
    assert torch.allclose(logits.double().cpu(), grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 10)


def test_all_ignored(target):
    logits, targets = draw(target, 3, 5000, torch.float32, False)
    losses, correct = run(target, logits, torch.full_like(targets, -100))
    assert not losses.any()
    assert not correct.any()
    assert not logits.any()


def test_another_index_to_ignore(target):
    logits, _ = draw(target, 2, 30, torch.float32, False)
    losses, _ = run(target, logits, torch.tensor([0, 4], device=target.device), ignore_index=0)
    assert losses[0] == 0
    assert losses[1] > 0


def test_without_a_gradient_the_logits_stay(target):
    logits, targets = draw(target, 2, 30, torch.float32, False)
    before = logits.clone()
    run(target, logits, targets, gradient=False)
    assert torch.equal(logits, before)


def test_of_equal_logits_the_lowest_id_counts(target):
    logits = torch.zeros(3, 4000, device=target.device)
    logits[:, [7, 3000]] = 2.0
    _, correct = run(target, logits, torch.tensor([7, 3000, 8], device=target.device))
    assert correct.tolist() == [True, False, False]


def test_huge_logits(target):
    """A loss of thousands is finite, and so is its gradient."""
    logits = torch.tensor([[3e4, -3e4, 0.0]], device=target.device)
    losses, _ = run(target, logits, torch.tensor([1], device=target.device))
    assert losses.item() == pytest.approx(6e4)
    assert torch.allclose(logits.cpu(), torch.tensor([[1.0, -1.0, 0.0]]))


def test_no_rows(target):
    run(target, torch.empty(0, 9, device=target.device), torch.empty(0, dtype=torch.int64, device=target.device))
