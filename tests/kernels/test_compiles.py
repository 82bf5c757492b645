"""Every kernel compiles for a Hopper GPU, as its op launches it: no GPU is needed, only Triton's own ptxas."""

import os
import re
import subprocess
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip('triton')

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from swiftlite_kernels.paged_lora import Expansion, LoRARouting  # noqa: E402
from swiftlite_kernels.paged_lora.reference import shrink as paged_shrink  # noqa: E402
from swiftlite_kernels.step import StepRows, StepTensors  # noqa: E402
from swiftlite_kernels.swiglu import LowRank  # noqa: E402

PTXAS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'ptxas'
pytestmark = [
    pytest.mark.skipif(os.environ.get('TRITON_INTERPRET') == '1', reason='nothing is compiled in an interpreted run'),
    pytest.mark.skipif(not PTXAS.exists(), reason='this build of Triton has no ptxas'),
]
FAMILIES = sorted(p.parent.name for p in Path(import_module('swiftlite_kernels').__file__).parent.glob('*/triton.py'))
NAMES = {
    torch.float32: 'fp32', torch.float16: 'fp16', torch.bfloat16: 'bf16', torch.float8_e4m3fn: 'fp8e4nv',
    torch.float8_e5m2: 'fp8e5', torch.int32: 'i32', torch.int64: 'i64', torch.int16: 'i16', torch.uint8: 'u8',
    torch.bool: 'i1',
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel and what a launcher would specialise it for."""

    kernel: JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, object], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, object], ...]

    def compile(self):
        places = {name: (i,) for i, name in enumerate(self.kernel.arg_names)}
        source = ASTSource(
            self.kernel, signature=dict(self.signature), constexprs={places[n]: x for n, x in self.constants},
            attrs={(i,): [['tt.divisibility', 16]] for i in self.aligned},
        )  # fmt: skip
        return triton.compile(source, target=GPUTarget('cuda', 90, 32), options=dict(self.options))


def launch_of(kernel, args, kwargs):
    """Types and constants as Triton's launcher finds them: None and 1 are constants, multiples of 16 are known."""
    given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    options = {k: given.pop(k) for k in list(given) if k not in kernel.arg_names}
    signature, constants, aligned = [], [], []
    for i, parameter in enumerate(kernel.params):
        x = given.get(parameter.name, parameter.default)
        varies = not parameter.do_not_specialize
        if parameter.is_constexpr or x is None or (varies and type(x) is int and x == 1):
            kind = 'constexpr'
            constants.append((parameter.name, x))
        elif isinstance(x, torch.Tensor):
            kind = '*' + NAMES[x.dtype]
            if x.data_ptr() % 16 == 0:
                aligned.append(i)
        elif isinstance(x, float):
            kind = 'fp32'
        else:
            kind = 'i32' if -(2**31) <= x < 2**31 else 'i64'
            if varies and x % 16 == 0:
                aligned.append(i)
        signature.append((parameter.name, kind))
    return Launch(kernel, tuple(signature), tuple(constants), tuple(aligned), tuple(options.items()))


@pytest.fixture
def record(monkeypatch):
    """Calls the Triton version of ops on CPU tensors; returns the launches that they make on a Hopper GPU."""
    found = {}
    for family in FAMILIES:
        module = import_module(f'swiftlite_kernels.{family}.triton')
        monkeypatch.setattr(module, 'early_launch', lambda x: {'EARLY': True, 'launch_pdl': True}, raising=False)

    def run(kernel, *args, grid, warmup, **kwargs):
        found[launch_of(kernel, args, kwargs)] = None

    def call(family, op, *args, **kw):
        getattr(import_module(f'swiftlite_kernels.{family}.triton'), op)(*args, **kw)
        return list(found)

    monkeypatch.setattr(JITFunction, 'run', run)
    return call


def bf16(*shape):
    return torch.zeros(shape, dtype=torch.bfloat16)


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


ONE = torch.ones(1)
HEADS, KV_HEADS, DIM = 6, 2, 80
Q, K = bf16(40, HEADS, DIM), bf16(40, KV_HEADS, DIM)
CACHE, BYTES = bf16(9, 16, KV_HEADS, DIM), torch.zeros(9, 16, KV_HEADS, DIM, dtype=torch.uint8)
LARGE = bf16(9, 128, KV_HEADS, DIM)  # one block holds a tile of keys
FP8_K = torch.zeros(9, KV_HEADS, DIM // 16, 16, 16, dtype=torch.uint8)
FP8_V = torch.zeros(9, KV_HEADS, DIM, 16, dtype=torch.uint8)
TABLE, STARTS, LENGTHS = torch.zeros(2, 5, dtype=torch.int32), int32(0, 1, 40), int32(70, 45)
SLOTS, POSITIONS = torch.zeros(40, dtype=torch.int64), torch.zeros(40, dtype=torch.int64)
SCALES, SLOPES = torch.ones(2, KV_HEADS), torch.ones(HEADS)
LONGS = torch.zeros(40, dtype=torch.int64)
ROUTING = (int32(0), int32(0), int32(1, 0), int32(0, 1, 1), int32(0, -1), torch.tensor([False]), int32(1))
TILES = LoRARouting(int32(0, 0), int32(0, 16), int32(16, 3), torch.zeros(1, 24, dtype=torch.int32), int32(16), 16)
SMALL_TILES = replace(TILES, counts=int32(8, 3), pool_rows=torch.zeros(1, 16, dtype=torch.int32), tile=8)


def unified(cache, longest, *options):
    scales = (SCALES, SCALES) if cache is BYTES else (None, None)
    return (
        Q, cache, cache, torch.empty_like(Q), STARTS, longest, LENGTHS, 2000, 0.1, True, (-1, -1), TABLE, 0.0, *scales,
        None, None, None, None, *options,
    )  # fmt: skip


def step():
    rows = StepRows(int32(0, 1), int32(0, 0), STARTS, int32(1, 1))
    longs = torch.zeros(3, 2, dtype=torch.int64)
    out = StepTensors(LONGS, LONGS, LONGS, LENGTHS, TABLE, *longs)
    return rows, torch.zeros(2, 64, dtype=torch.int32), TABLE, 16, out


def paged(keys, values, name, parts=()):
    rest = (Q[:2], keys, values, 0.1, TABLE, LENGTHS, 2000, SLOPES, name, ONE, ONE)
    return (torch.empty_like(Q[:2]), *parts, *rest)


ROW, BATCH = torch.zeros(2), bf16(4, 64)
ADAPTER, DROPPED = LowRank(bf16(4, 8), bf16(64, 8), 0.5), LowRank(bf16(4, 8), bf16(8, 64).T, 1.0, 0.05, 7)
CALLS = {
    'norm.rms_norm': (bf16(4, 769), bf16(4, 769), bf16(769), 1e-6),
    'norm.fused_add_rms_norm': (bf16(4, 64), bf16(4, 64), bf16(64), 1e-6),
    'activation.silu_and_mul': (bf16(4, 64), bf16(4, 128)),
    'norm.fused_add_rms_norm adapter': (
        bf16(40, 3584), bf16(40, 3584), bf16(3584), 1e-6,
        Expansion(torch.zeros(16, 40, 16), bf16(32, 3584), [3584], SMALL_TILES),
    ),
    'rotary.rotary_embedding': (POSITIONS, Q.flatten(1), K.flatten(1), DIM, torch.zeros(64, DIM), True),
    'rotary.rotary_and_cache': (
        bf16(40, (HEADS + 2 * KV_HEADS) * DIM), None, bf16(DIM), bf16(DIM), 1e-6, POSITIONS, DIM,
        torch.zeros(64, DIM), True, BYTES, BYTES, SLOTS, 'fp8', ONE, ONE,
    ),
    'rotary.rotary_and_cache adapter': (
        bf16(40, (HEADS + 2 * KV_HEADS) * DIM), bf16((HEADS + 2 * KV_HEADS) * DIM), bf16(DIM), bf16(DIM), 1e-6,
        POSITIONS, DIM, torch.zeros(64, DIM), True, BYTES, BYTES, SLOTS, 'fp8', ONE, ONE,
        Expansion(
            torch.zeros(3, 40, 48), bf16(32, (HEADS + 2 * KV_HEADS) * DIM), [HEADS * DIM, *[KV_HEADS * DIM] * 2],
            SMALL_TILES,
        ),
    ),
    'cache.reshape_and_cache_flash': (K, K, CACHE, CACHE, SLOTS, 'auto', ONE, ONE),
    'cache.reshape_and_cache': (K, K, FP8_K, FP8_V, SLOTS, 'fp8_e5m2', ONE, ONE),
    'cache.swap_blocks': (CACHE, CACHE.clone(), 2048, torch.tensor([[0, 1]])),
    'attention.unified_attention': unified(CACHE, 1, SLOPES, None, SLOPES, False, int32(0, 2, 16)),
    'attention.unified_attention large blocks': unified(LARGE, 39, None, None, None, False, int32(0, 2, 128)),
    'attention.unified_attention fp8': unified(BYTES, 39, None, None, None, False),
    'attention.merge_attn_states': (Q, Q, torch.zeros(HEADS, 40), Q, torch.zeros(HEADS, 40)),
    'gemv.gemv': (bf16(1, 64), bf16(1, 96), bf16(128, 96), None, None, bf16(96), 1e-6, True, None),
    'lora.lora_shrink': (bf16(1, 64), [bf16(1, 8, 64)], torch.zeros(1, 1, 8), *ROUTING, 1.0),
    'lora.lora_expand': (torch.zeros(1, 1, 8), [bf16(1, 64, 8)], bf16(1, 64), *ROUTING, 0, True),
    'gemv.gemv adapter': (
        bf16(1, 64), bf16(1, 96), bf16(128, 96), None, None, bf16(96), 1e-6, True,
        Expansion(torch.zeros(3, 1, 32), bf16(32, 128), [64, 64], TILES),
    ),
    'paged_lora.shrink': (bf16(40, 64), bf16(2, 32, 64), TILES, bf16(64)),
    'paged_lora.expand': (bf16(40, 96), torch.zeros(3, 40, 32), bf16(32, 96), [64, 32], TILES),
    'paged_lora.expand_silu_and_mul': (bf16(40, 48), bf16(40, 96), torch.zeros(3, 40, 32), bf16(32, 96), TILES),
    'residual_norm.add_rms_norm': (*(bf16(4, 769) for _ in range(4)), bf16(769), 1e-6),
    'residual_norm.rms_norm_backward': (BATCH, torch.ones(64), BATCH, BATCH, BATCH, bf16(64), 1e-6),
    'residual_norm.rms_norm_backward plain': (BATCH, None, BATCH, None, BATCH, bf16(64), 1e-6),
    'rope.rotate_query_key': (Q[None], K[None], Q[None], K[None], bf16(1, 40, DIM), bf16(1, 40, DIM), True),
    'swiglu.swiglu': (BATCH, BATCH, BATCH),
    'swiglu.swiglu_backward': (BATCH, BATCH, BATCH),
    'swiglu.swiglu adapter': (BATCH, BATCH, BATCH, ADAPTER, None),
    'swiglu.swiglu_backward adapter': (BATCH, BATCH, BATCH, True, ADAPTER, ADAPTER, DROPPED),
    'cross_entropy.cross_entropy': (
        ROW, torch.zeros(2, dtype=torch.bool), bf16(2, 50000), LONGS[:2], ROW, 30.0, -100, True
    ),
    'cross_entropy.cross_entropy plain': (ROW, torch.zeros(2, dtype=torch.bool), bf16(2, 50000), LONGS[:2]),
    'lora_dropout.dropout_shrink': (bf16(200, 1100), bf16(24, 1100), 0.05, 2**40),
    'lora_dropout.dropout_shrink_backward': (bf16(200, 24), bf16(200, 1100), bf16(24, 1100), 0.05, 7, bf16(200, 1100)),
    'lora_dropout.dropout_shrink many ranks': (bf16(200, 1100), bf16(384, 1100), 0.05, 2**40),
    'lora_dropout.dropout_shrink_backward many ranks': (
        bf16(200, 384), bf16(200, 1100), bf16(384, 1100), 0.05, 7, bf16(200, 1100)
    ),
    'lora_dropout.dropout_shrink_backward fp32': (
        torch.zeros(200, 8), torch.zeros(200, 64), torch.zeros(8, 64), 0.05, 7, None
    ),
    'sampling.philox_uniform': (LONGS[:2], LONGS[:2], 5000),
    'sampling.sample': (torch.zeros(2, 5000), ROW, int32(5, 0), ROW, ROW, LONGS[:2], LONGS[:2]),
    'sampling.apply_repetition_penalties': (bf16(2, 50), *torch.zeros(2, 2, 50, dtype=torch.bool), ROW),
    'step.prepare_step': step(),
    'quant.scaled_fp8_quant': (torch.empty(4, 64, dtype=torch.float8_e4m3fn), bf16(4, 64), torch.ones(4, 1), 1, 64),
    'quant.quantize_whole': (torch.empty(4, 64, dtype=torch.float8_e4m3fn), bf16(4, 64), ONE),
    'quant.quantize_rows': (torch.empty(4, 64, dtype=torch.float8_e4m3fn), bf16(4, 64), torch.ones(4, 1), ONE),
    'paged_attention.paged_attention_v2': paged(
        FP8_K, FP8_V, 'fp8', (*torch.zeros(2, 2, HEADS, 4), bf16(2, HEADS, 4, DIM))
    ),
    'paged_attention.decode_attention_fwd': (
        Q[:2], CACHE, CACHE[..., :64], bf16(2, HEADS, 64), torch.zeros(2, HEADS), TABLE, LENGTHS,
        torch.zeros(2, HEADS, 4, 65), 4, 0.1, 16, 30.0, None, None,
    ),
    'prefix_prefill.context_attention_fwd': (
        Q, K, K, torch.empty_like(Q), 'fp8', FP8_K, FP8_V, TABLE, STARTS, LENGTHS, 39, ONE, ONE, SLOPES, 20, 0.1,
        True, None, SLOPES,
    ),
    'triton_prefill_attention.context_attention_fwd': (
        Q, K, K, torch.empty_like(Q), STARTS, int32(1, 39), 39, False, 0.1, (-1, 7),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CALLS)
def test_compiles(record, name):
    launches = record(*name.split()[0].split('.'), *CALLS[name])
    assert launches
    for launch in launches:
        limit = 232448  # bytes of shared memory that a program may have on a Hopper GPU
        assert launch.compile().metadata.shared <= limit, launch.kernel.__name__


WHOLE_TILES = replace(SMALL_TILES, pool_rows=torch.zeros(65, 16, dtype=torch.int32))
WHOLE = {
    'norm.fused_add_rms_norm': (
        bf16(40, 3584), bf16(40, 3584), bf16(3584), 1e-6,
        Expansion(torch.zeros(16, 40, 16), bf16(512, 3584), [3584], WHOLE_TILES),
    ),
    'rotary.rotary_and_cache': (
        bf16(40, 4608), bf16(4608), None, None, 1e-6, POSITIONS, 128, torch.zeros(64, 128), True,
        bf16(9, 16, 4, 128), bf16(9, 16, 4, 128), SLOTS, 'auto', ONE, ONE,
        Expansion(torch.zeros(16, 40, 48), bf16(512, 4608), [3584, 512, 512], WHOLE_TILES),
    ),
    'gemv.gemv': (
        bf16(1, 18944), bf16(1, 3584), bf16(37888, 3584), None, None, bf16(3584), 1e-6, True,
        Expansion(torch.zeros(16, 1, 32), bf16(512, 37888), [18944, 18944], WHOLE_TILES),
    ),
}  # fmt: skip


@pytest.mark.skipif(not (PTXAS.parent / 'cuobjdump').exists(), reason='this build of Triton has no cuobjdump')
@pytest.mark.parametrize('name', WHOLE)
def test_what_takes_in_adapters_of_7b_does_not_spill(record, tmp_path, name):
    (launch,) = record(*name.split('.'), *WHOLE[name])
    binary = tmp_path / 'kernel.cubin'
    binary.write_bytes(launch.compile().asm['cubin'])
    tool = str(PTXAS.parent / 'cuobjdump')
    usage = subprocess.run([tool, '-res-usage', str(binary)], capture_output=True, text=True, check=True).stdout
    assert ' STACK:0 ' in usage, usage


def test_no_kernel_is_forgotten(record):
    """Every jitted function that is launched somewhere is one of the above."""
    import ast

    launches = [x for name in CALLS for x in record(*name.split()[0].split('.'), *CALLS[name])]
    reached = {(launch.kernel.fn.__module__.split('.')[1], launch.kernel.__name__) for launch in launches}
    written = set()
    for family in FAMILIES:
        for node in ast.walk(ast.parse(Path(import_module(f'swiftlite_kernels.{family}.triton').__file__).read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.endswith('_kernel'):
                written.add((family, node.name))
    assert reached == written


@pytest.mark.parametrize('filters', [False, True])
def test_no_batch_compiles_a_sampler_anew(record, filters):
    """What one batch has compiled serves all sizes: the same kernels, constants and alignments."""
    for rows in range(1, 10):
        column, longs = torch.ones(rows), torch.zeros(rows, dtype=torch.int64)
        top = (column.int(), column, column) if filters else (None, None, None)
        launches = record('sampling', 'sample', torch.zeros(rows, 5000), column, *top, longs, longs)
    assert len(launches) == (3 if filters else 2)


def decode(rows, longest, dim=128, dtype=torch.bfloat16):
    """Arguments of attention for `rows` single tokens of a model with 4 key heads."""
    q, cached = bf16(rows, 36, dim)[:, :28], torch.zeros(9, 16, 4, dim, dtype=dtype)
    starts, lengths = torch.zeros(rows + 1, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
    table = torch.zeros(rows, 32, dtype=torch.int32)
    return (
        q, cached, cached, bf16(rows, 28, dim), starts, 1, lengths, longest, 0.1, True, (-1, -1), table, 0.0,
        None, None, None, None, None, None, None, None, None, False,
    )  # fmt: skip


def test_no_batch_compiles_attention_anew(record, monkeypatch):
    """Neither the number of sequences nor their lengths; few parts and many are summed up by a kernel each."""
    monkeypatch.setattr('swiftlite_kernels.attention.triton.multiprocessors', lambda device: 132)
    for rows in (1, 2, 3, 8, 16, 17, 48, 64, 100, 128, 255, 256, 1000):
        for longest in (17, 500, 1024, 1025, 4096, 131072):
            launches = record('attention', 'unified_attention', *decode(rows, longest))
    names = [launch.kernel.__name__ for launch in launches]
    assert sorted(names) == ['merge_splits_kernel', 'merge_splits_kernel', 'split_kernel']


@pytest.mark.parametrize('dim, dtype', [(128, torch.bfloat16), (64, torch.bfloat16), (128, torch.float8_e4m3fn)])
def test_three_decode_programs_have_room_without_spills(record, tmp_path, dim, dtype):
    dump = PTXAS.parent / 'cuobjdump'
    if not dump.exists():
        pytest.skip('this build of Triton has no cuobjdump')
    split = record('attention', 'unified_attention', *decode(64, 4096, dim, dtype))[0]
    compiled = split.compile()
    (tmp_path / 'cubin').write_bytes(compiled.asm['cubin'])
    usage = subprocess.run([dump, '--dump-resource-usage', tmp_path / 'cubin'], capture_output=True, text=True).stdout
    registers, stack = (int(n) for n in re.search(r'REG:(\d+) STACK:(\d+)', usage).groups())
    assert stack == 0
    assert registers <= 168  # a third of 65,536 for 128 threads
    assert 3 * (compiled.metadata.shared + 1024) <= 233472


@pytest.mark.parametrize('tile', [8, 16, 64])
def test_no_step_compiles_adapters_anew(record, tile):
    """Steps outside graphs have any number of tokens and tiles."""
    for tokens, tiles in ((2, 1), (3, 2), (7, 7), (33, 5), (500, 40), (501, 63), (1040, 1)):
        column = torch.zeros(tiles, dtype=torch.int32)
        where = LoRARouting(column, column, column, torch.zeros(9, 16, dtype=torch.int32), int32(*[16] * 9), tile)
        x, y, a, b = bf16(tokens, 64), bf16(tokens, 96), bf16(2, 32, 64), bf16(32, 96)
        shrunk = paged_shrink(x, a, where, None)
        record('paged_lora', 'shrink', x, a, where, None)
        record('paged_lora', 'expand', y, shrunk, b, [48, 48], where)
        launches = record('paged_lora', 'expand_silu_and_mul', y[:, :48].contiguous(), y, shrunk, b, where)
    assert len({launch.kernel for launch in launches}) == 3
    assert len(launches) == 3


@pytest.mark.parametrize('op', ['lora_shrink', 'lora_expand'])
def test_routing_that_is_made_on_the_device_is_waited_for(record, op):
    """The kernel before may be the one that writes it: nothing of it may be read early."""
    launches = record('lora', op, *CALLS[f'lora.{op}'])
    assert launches and not any(dict(launch.constants)['EARLY'] for launch in launches)
