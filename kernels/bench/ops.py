"""Time every op on this GPU: share of the copy or matrix ceiling measured in the same run, error against float64.

usage: PYTHONPATH=kernels python kernels/bench/ops.py [--ops norm,attention] [--models qwen2.5-7b] [--json out.jsonl]

Times are of CUDA graph replays over rotating buffers (median), so launch gaps on the host do not count. `share` is
the least bytes (or operations) the op must move (or do) over its time, against a device copy (or an 8192-cubed bf16
product); under 1.5 times an empty kernel's time it says nothing and is left out. `torch` is the same work in torch
operators.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass

import torch
import triton
from adapter_cases import paged_lora_cases
from cases import FAMILIES as ENGINE
from cases import SHAPES, Call, Case
from contract_cases import CONTRACT
from training_cases import TRAINING

FAMILIES = ENGINE | {'paged_lora': paged_lora_cases} | CONTRACT | TRAINING


@dataclass(frozen=True)
class Row:
    model: str
    op: str
    size: str
    us: float
    share: float | None
    error: float | None
    torch_us: float | None


def graph_seconds(calls: list[Call], repeats: int = 3, samples: int = 15) -> float:
    """Median seconds a call, by replaying a captured graph of all of them."""
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    times = []
    for i in range(samples + 2):  # the first two warm up
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times) / (repeats * len(calls))


def ceilings() -> dict[str, float]:
    """Bytes/s of a device copy (read + written), operations/s of a bf16 product, seconds of an empty kernel."""
    x = torch.randn(1 << 30, device='cuda', dtype=torch.bfloat16)
    y = torch.empty_like(x)
    copies = []
    for _ in range(12):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        y.copy_(x)
        end.record()
        torch.cuda.synchronize()
        copies.append(start.elapsed_time(end) / 1e3)
    a = torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16)
    one = torch.zeros(1, device='cuda')
    return {
        'copy': 2 * x.numel() * x.element_size() / statistics.median(copies[2:]),
        'gemm': 2 * 8192**3 / graph_seconds([lambda: a @ a], 3, 5),
        'empty': graph_seconds([lambda: one.add_(1)], 100),
    }


def measure(model: str, case: Case, limits: dict[str, float]) -> Row:
    seconds = graph_seconds(case.calls)
    share = None
    if seconds > 1.5 * limits['empty'] and (case.bytes or case.flops):
        share = max(case.bytes / limits['copy'], case.flops / limits['gemm']) / seconds
    return Row(
        model, case.op, case.size, round(seconds * 1e6, 2), None if share is None else round(share, 3),
        None if case.check is None else case.check(), None if case.plain is None else plain_us(case.plain),
    )


def plain_us(call: Call) -> float:
    for _ in range(3):
        call()
    return round(triton.testing.do_bench(call, warmup=5, rep=20, return_mode='median') * 1e3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ops', default=','.join(FAMILIES), help=f'of {", ".join(FAMILIES)}')
    parser.add_argument('--models', default=','.join(s.name for s in SHAPES))
    parser.add_argument('--json', help='also write one JSON line a row to this file')
    args = parser.parse_args()
    torch.manual_seed(0)
    limits = ceilings()
    device = torch.cuda.get_device_name()
    print(f'{device}, torch {torch.__version__}, triton {triton.__version__}: copy {limits["copy"] / 1e12:.2f} TB/s, '
          f'bf16 product {limits["gemm"] / 1e12:.0f} TFLOP/s, empty kernel {limits["empty"] * 1e6:.2f} us')
    print(f'{"model":13} {"op":27} {"size":44} {"us":>9} {"share":>6} {"error":>8} {"torch us":>9}')
    rows = []
    for shape in [s for s in SHAPES if s.name in args.models.split(',')]:
        for family in args.ops.split(','):
            for case in FAMILIES[family](shape):
                row = measure(shape.name, case, limits)
                rows.append(row)
                share = '' if row.share is None else f'{row.share:.0%}'
                wrong = '' if row.error is None else f'{row.error:.1e}'
                plain = row.torch_us or ''
                print(f'{row.model:13} {row.op:27} {row.size:44} {row.us:9.2f} {share:>6} {wrong:>8} {plain:>9}',
                flush=True)
    if args.json:
        with open(args.json, 'w') as f:
            f.writelines(json.dumps(x) + '\n' for x in [{'device': device, **limits}, *map(asdict, rows)])


if __name__ == '__main__':
    main()
