"""The fused ops against the formulas they stand for, differentiated by torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, apply_rotary_pos_emb

from swiftlite.train.model import fused
from swiftlite.train.model.fused_lora import Projection, mlp, project
from swiftlite_kernels.lora_dropout.reference import dropped

KINDS = {'lora': (True, True, True), 'some': (True, False, True), 'none': (False, False, False)}


def draw(*shape, grad=True):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_(grad)


def layer(inner, outer, adapted, bias, dropout=0.0):
    """Rank 3, a scale that is no power of two."""
    adapter = (draw(3, inner), draw(outer, 3), 0.3, dropout) if adapted else (None, None, 0.0, 0.0)
    return Projection(draw(outer, inner, grad=False), draw(outer, grad=False) if bias else None, *adapter)


def formula(x, layer, mask=None):
    y = F.linear(x, layer.weight, layer.bias)
    if layer.a is None:
        return y
    return y + layer.scale * ((x if mask is None else x * mask) @ layer.a.T @ layer.b.T)


def assert_same(found, wanted, inputs):
    """Outputs and gradients of the same inputs."""
    slopes = [torch.randn_like(y) for y in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad(y, inputs, slopes, allow_unused=True) for y in (found, wanted)]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def adapters(*layers):
    return [t for one in layers for t in (one.a, one.b) if t is not None]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bias', [False, True])
def test_projections(kind, bias):
    torch.manual_seed(0)
    x = draw(2, 5, 7)
    layers = [layer(7, n, adapted, bias) for n, adapted in zip((6, 4, 4), KINDS[kind], strict=True)]
    assert_same(project(x, layers), [formula(x, one) for one in layers], [x, *adapters(*layers)])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bias', [False, True])
def test_mlp(kind, bias):
    torch.manual_seed(0)
    x = draw(2, 5, 7)
    gate, up = (layer(7, 11, adapted, bias) for adapted in KINDS[kind][:2])
    down = layer(11, 7, KINDS[kind][2], bias)
    wanted = formula(F.silu(formula(x, gate)) * formula(x, up), down)
    assert_same([mlp(x, gate, up, down)], [wanted], [x, *adapters(gate, up, down)])


def masks(monkeypatch, *shapes):
    """Masks of dropout for the seeds 5, 6, ... that will be drawn."""
    seeds = iter(range(5, 99))
    monkeypatch.setattr('swiftlite.train.model.fused_lora.draw_seed', lambda layers: next(seeds))
    return [dropped(torch.ones(*shape, dtype=torch.float64), 0.25, 5 + i) for i, shape in enumerate(shapes)]


def test_projections_with_dropout(monkeypatch):
    torch.manual_seed(0)
    x, (mask,) = draw(10, 7), masks(monkeypatch, (10, 7))
    layers = [layer(7, n, True, True, 0.25) for n in (6, 4)]
    assert_same(project(x, layers), [formula(x, one, mask) for one in layers], [x, *adapters(*layers)])


def test_mlp_with_dropout(monkeypatch):
    torch.manual_seed(0)
    x, (outer, inner) = draw(10, 7), masks(monkeypatch, (10, 7), (10, 11))
    gate, up, down = layer(7, 11, True, False, 0.25), layer(7, 11, True, False, 0.25), layer(11, 7, True, False, 0.25)
    wanted = formula(F.silu(formula(x, gate, outer)) * formula(x, up, outer), down, inner)
    assert_same([mlp(x, gate, up, down)], [wanted], [x, *adapters(gate, up, down)])


def test_every_call_drops_something_else():
    torch.manual_seed(0)
    x, one = draw(10, 7), layer(7, 6, True, False, 0.5)
    assert not torch.equal(project(x, [one])[0], project(x, [one])[0])


def test_what_is_kept_of_an_mlp():
    """x, gate, up and narrow products: not the activation between up and down, nor anything else of its size."""
    torch.manual_seed(0)
    x = draw(16, 8)
    layers = layer(8, 64, True, False), layer(8, 64, True, False), layer(64, 8, True, False)
    weights = {t.data_ptr() for one in layers for t in one.tensors() if t is not None}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mlp(x, *layers)
    sizes = sorted(t.numel() for t in kept if t.data_ptr() not in weights)
    assert sizes == sorted([16 * 8, 16 * 6, 16 * 3, 16 * 64, 16 * 64])


def test_a_second_backward_pass_is_refused():
    x = draw(3, 4)
    y = fused.SwiGLU.apply(x, x.detach().clone()).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='use_kernels false'):
        y.backward()


def norm(hidden, trained):
    module = Qwen2RMSNorm(hidden, eps=1e-6).double()
    nn.init.normal_(module.weight)
    return module.requires_grad_(trained)


def plain_norm(x, module):
    return module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize('used', ['both', 'normed', 'residual'])
def test_norms(trained, used):
    torch.manual_seed(0)
    x, residual, module = draw(2, 3, 8), draw(2, 3, 8), norm(8, trained)
    keep = slice(0, 2) if used == 'both' else slice(0, 1) if used == 'normed' else slice(1, 2)
    weights = [module.weight] if trained and used != 'residual' else []
    assert_same(fused.rms_norm(x, module)[keep], (plain_norm(x, module), x)[keep], [x, *weights])
    total = x + residual
    wanted = (plain_norm(total, module), total)[keep]
    assert_same(fused.add_rms_norm(x, residual, module)[keep], wanted, [x, residual, *weights])


def test_norm_by_finite_differences():
    torch.manual_seed(0)
    module = norm(6, True)
    inputs = draw(2, 3, 6), draw(2, 3, 6), module.weight
    assert torch.autograd.gradcheck(lambda *t: fused.AddNorm.apply(*t, 1e-6, torch.float64), inputs)


def test_rotary():
    torch.manual_seed(0)
    query, key = draw(2, 4, 5, 8).transpose(1, 2), draw(2, 5, 1, 8)
    angle = torch.randn(2, 5, 4).repeat(1, 1, 2).double()
    wanted = apply_rotary_pos_emb(query, key, angle.cos(), angle.sin(), unsqueeze_dim=2)
    assert_same(fused.Rotary.apply(query, key, angle.cos(), angle.sin()), wanted, [query, key])


def test_swiglu():
    torch.manual_seed(0)
    gate, up = draw(3, 4), draw(3, 4)
    assert_same([fused.SwiGLU.apply(gate * 1, up * 1)], [F.silu(gate) * up], [gate, up])
