"""Copies of adapters in the layout of the pools: bit for bit what each matrix by itself would give."""

import json
import random

import pytest
import torch
from safetensors.torch import save_file

from swiftlite.engine.adapters import layout as adapter_layout
from swiftlite.engine.adapters.host import AdapterFormat
from swiftlite.engine.adapters.layout import groups
from swiftlite.errors import SwiftliteError
from swiftlite.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from swiftlite.layers.parallel import TPGroup

HIDDEN, WIDTH, LAYERS, VOCAB = 16, 24, 12, 40
SIZES = {
    'q_proj': (HIDDEN, 16),
    'k_proj': (HIDDEN, 8),
    'v_proj': (HIDDEN, 8),
    'o_proj': (16, HIDDEN),
    'gate_proj': (HIDDEN, WIDTH),
    'up_proj': (HIDDEN, WIDTH),
    'down_proj': (WIDTH, HIDDEN),
}
ATTENTION = ('q_proj', 'k_proj', 'v_proj', 'o_proj')


def linears(tp, dtype):
    found = []
    for layer in range(LAYERS):
        at, mlp = f'model.layers.{layer}.self_attn', f'model.layers.{layer}.mlp'
        found += [
            QKVParallelLinear(at, HIDDEN, 4, 2, 4, False, tp, dtype, 'meta'),
            RowParallelLinear(at, 'o_proj', 16, HIDDEN, False, tp, dtype, 'meta'),
            ColumnParallelLinear(mlp, HIDDEN, {'gate_proj': WIDTH, 'up_proj': WIDTH}, False, tp, dtype, 'meta'),
            RowParallelLinear(mlp, 'down_proj', WIDTH, HIDDEN, False, tp, dtype, 'meta'),
        ]
    return found


def make(dtype=torch.float32, tp=TPGroup(), max_rank=32):  # noqa: B008 (frozen)
    sizes = SIZES | dict.fromkeys(('embed_tokens', 'lm_head'), (HIDDEN, VOCAB))
    alike = groups(linears(tp, dtype))
    return alike, AdapterFormat(alike, sizes, max_rank, dtype, False)


def write(folder, dtypes, skip=0.0, seed=0, head=False, suffix='safetensors', **options):
    """An adapter of rank 8, but where the options say otherwise; returns a, b and scaling by module."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    settings = {'peft_type': 'LORA', 'r': 8, 'lora_alpha': 10.4} | options
    tensors, modules = {}, {}
    names = [
        (f'model.layers.{layer}.{"self_attn" if name in ATTENTION else "mlp"}.{name}', *size)
        for layer in range(LAYERS)
        for name, size in SIZES.items()
    ]
    for name, n_in, n_out in [*names, ('lm_head', HIDDEN, VOCAB)] if head else names:
        if rng.random() < skip:
            continue
        leaf = name.rpartition('.')[2]
        rank = settings.get('rank_pattern', {}).get(leaf, settings['r'])
        alpha = settings.get('alpha_pattern', {}).get(leaf, settings['lora_alpha'])
        a, b = (
            torch.randn(shape, generator=generator).to(rng.choice(dtypes)) for shape in ((rank, n_in), (n_out, rank))
        )
        modules[name] = a, b, alpha / rank
        tensors |= {f'base_model.model.{name}.lora_A.weight': a, f'base_model.model.{name}.lora_B.weight': b}
    folder.mkdir(exist_ok=True)
    (folder / 'adapter_config.json').write_text(json.dumps(settings))
    if suffix == 'bin':
        torch.save(tensors, folder / 'adapter_model.bin')
    else:
        save_file(tensors, folder / 'adapter_model.safetensors')
    return modules


def check(alike, copy, modules, dtype):
    """Every number of every array, and that no matrix is missing."""
    seen = set()
    for array in copy.arrays:
        found = array.of(copy.pieces[array.piece])
        for part, linear in zip(found, alike[array.group].linears[array.first :], strict=False):
            expected = torch.zeros(part.shape, dtype=dtype)
            for index, s in enumerate(linear.slices):
                name = f'{linear.prefix}.{s.name}'
                if name in modules:
                    seen.add((name, array.is_a))
                    a, b, scaling = modules[name]
                    a, b = linear.shard_lora(s, a, b)
                    if array.is_a:
                        expected[index, : len(a)] = a.to(dtype)
                    else:
                        expected[: b.shape[1], s.start : s.start + s.rows] = (b.float() * scaling).to(dtype).t()
            assert torch.equal(part, expected)
    assert seen == {(name, is_a) for name in modules if name != 'lm_head' for is_a in (True, False)}


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize('dtype', [F32, BF16, F16])
@pytest.mark.parametrize('stored', [[F32], [BF16], [F16], [F32, BF16]], ids=str)
def test_every_number_is_where_it_belongs(tmp_path, dtype, stored):
    alike, form = make(dtype)
    modules = write(tmp_path / 'a', stored)
    check(alike, form.read(str(tmp_path / 'a')), modules, dtype)


@pytest.mark.parametrize(
    'options',
    [
        {'skip': 0.4},
        {'r': 3, 'skip': 0.2},
        {'rank_pattern': {'q_proj': 16, 'down_proj': 4}, 'alpha_pattern': {'up_proj': 3, 'v_proj': 8}},
        {'head': True, 'suffix': 'bin'},
    ],
    ids=str,
)
@pytest.mark.parametrize('tp', [TPGroup(), TPGroup(1, 2)])
def test_parts_of_layers_ranks_and_scalings_of_their_own(tmp_path, monkeypatch, options, tp):
    monkeypatch.setattr(adapter_layout, 'PIECE', 6000)  # bytes: a few layers
    monkeypatch.setattr(adapter_layout, 'BLOCK', 50)
    alike, form = make(BF16, tp)
    modules = write(tmp_path / 'a', [BF16], **options)
    copy = form.read(str(tmp_path / 'a'))
    assert len(copy.pieces) > 3
    check(alike, copy, modules, BF16)
    if 'head' in options:
        a, b, scaling = modules['lm_head']
        assert torch.equal(copy.vocab['lm_head'].a, a)
        assert torch.equal(copy.vocab['lm_head'].b, (b.float() * scaling).bfloat16())


def test_adapters_of_one_shape_share_a_layout(tmp_path, monkeypatch):
    """What was worked out for one holds for the others, and their values are checked all the same."""
    alike, form = make(BF16)
    made = []
    monkeypatch.setattr(form, '_make', lambda *args, make=form._make: made.append(1) or make(*args))
    for seed in range(3):
        modules = write(tmp_path / f'{seed}', [F32], seed=seed)
        copies = [form.read(str(tmp_path / f'{seed}')) for _ in range(2)]
        for copy in copies:  # the second does not write over the first
            check(alike, copy, modules, BF16)
    assert len(made) == 1
    other = write(tmp_path / 'other', [F32], lora_alpha=3)  # the same header
    check(alike, form.read(str(tmp_path / 'other')), other, BF16)
    assert len(made) == 2
    for value in ('nan', 'inf', '-inf'):
        broken = tmp_path / '1' / 'adapter_model.safetensors'
        content = bytearray(broken.read_bytes())
        content[-4:] = torch.tensor([float(value)]).numpy().tobytes()
        broken.write_bytes(content)
        with pytest.raises(SwiftliteError, match=r'lora_B of model\.layers\.9\..* holds values that are not finite'):
            form.read(str(tmp_path / '1'))
    broken.write_bytes(content[:-40])
    with pytest.raises(SwiftliteError, match='is damaged'):
        form.read(str(tmp_path / '1'))


def test_equal_distances_become_one_copy(tmp_path):
    _, form = make(BF16)
    write(tmp_path / 'a', [BF16])
    form.read(str(tmp_path / 'a'))
    (layout,) = form._layouts.values()
    # A and B of seven kinds; the file has layers 0 1 10 11 2 3 …
    assert len(layout.moves) <= 2 * 7 * 4 < 2 * 7 * LAYERS and len(layout.arrays) == 2 * 4
