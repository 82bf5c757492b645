"""What the device itself can do, measured: bytes a second, and matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

GPU_BYTES, CPU_BYTES = 4 * 2**30, 128 * 2**20  # of the tensor that is copied
GPU_SIZE, CPU_SIZE = (8192, 8192, 28672), (1024, 1024, 1024)  # rows, inner, columns of the product


@dataclass(frozen=True)
class Ceilings:
    copy_bytes: float  # read and written, a second
    gemm_flops: float  # a second
    row_bytes: float  # weights read a second by the product of one row

    def numbers(self) -> dict[str, float]:
        """For a JSON line: TB/s and TFLOP/s."""
        return {
            'copy_tb_s': _round(self.copy_bytes),
            'gemm_tflop_s': _round(self.gemm_flops),
            'one_row_tb_s': _round(self.row_bytes),
        }

    def __str__(self) -> str:
        return (
            f'copy {self.copy_bytes / 1e12:.3g} TB/s, matrix product {self.gemm_flops / 1e12:.3g} TFLOP/s, '
            f'one row reads weights at {self.row_bytes / 1e12:.3g} TB/s'
        )


def measure(device: str, dtype: torch.dtype) -> Ceilings:
    """Device copy, a large product, and a product of one row, each the best of several runs."""
    gpu = device.startswith('cuda')
    size = GPU_BYTES if gpu else CPU_BYTES
    rows, inner, columns = GPU_SIZE if gpu else CPU_SIZE
    if gpu:
        free, _ = torch.cuda.mem_get_info(device)
        size = min(size, free // 4)
    copied, copy = _copy(size // dtype.itemsize, device, dtype)
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    w = torch.randn(inner, columns, dtype=dtype, device=device)
    gemm = _seconds(lambda: a @ w, device)
    one = _seconds(lambda: a[:1] @ w, device)
    return Ceilings(copied / copy, 2 * rows * inner * columns / gemm, inner * columns * dtype.itemsize / one)


def _copy(count: int, device: str, dtype: torch.dtype) -> tuple[int, float]:
    """(bytes read and written, seconds) of a copy; its memory is free again after it."""
    source = torch.ones(count, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return 2 * count * dtype.itemsize, _seconds(lambda: target.copy_(source), device)


def _seconds(run: Callable[[], torch.Tensor], device: str) -> float:
    """Seconds of one run: of the best of 5 groups on a CPU, the mean of 20 after a warm-up on a GPU."""
    if not device.startswith('cuda'):
        run()
        return min(_clock(run) for _ in range(5))
    for _ in range(5):
        run()
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)
    start.record()
    for _ in range(20):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3 / 20


def _clock(run: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _round(value: float) -> float:
    return float(f'{value / 1e12:.4g}')
