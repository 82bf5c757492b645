"""What the Triton kernels share: IEEE mathematics that also runs interpreted, and launch sizes."""

import os
from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

# the interpreter runs kernels on a CPU, without CUDA's library of functions
INTERPRETED = tl.constexpr(os.environ.get('TRITON_INTERPRET') == '1')
LOG2E = 1.4426950408889634


@triton.jit
def begin(EARLY: tl.constexpr):
    """Let the next kernel take its place on the device, and wait for what the previous one writes.

    Comes before anything is read: launched with early_launch, a kernel starts before the previous one has ended. A
    program without work may leave before it if another one of its launch waits, which what comes later counts on.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def begin_first(EARLY: tl.constexpr):
    """begin() of a kernel beside which the next one works: that one starts when what came before both is written."""
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def begin_beside(EARLY: tl.constexpr, place):
    """begin() of the kernel after one with begin_first(): reads all but the latter's results, and writes nothing yet.

    Drops what the first-level cache holds from before (place: any readable memory). wait() comes before all else.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.inline_asm_elementwise(
            'ld.acquire.gpu.global.b32 $0, [$1];', '=r,l', [place.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def wait(EARLY: tl.constexpr):
    if EARLY:
        tl.extra.cuda.gdc_wait()


@triton.jit
def exp(x):
    """exp(x), as exact as torch's."""
    if INTERPRETED:
        return tl.exp(x)
    return libdevice.exp(x)


@triton.jit
def tanh(x):
    if INTERPRETED:
        return 1 - 2 / (tl.exp(2 * tl.minimum(x, 40.0)) + 1)
    return libdevice.tanh(x)


@triton.jit
def fast_log2(x):
    """log2(x) of the special function unit: 2^-22 off, relative to the result where that is above 1."""
    if INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise('lg2.approx.f32 $0, $1;', '=f,f', [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def divide(x, y):
    """x / y rounded to nearest (the operator may be an approximation)."""
    if INTERPRETED:
        return x / y
    return tl.div_rn(x, y)


@triton.jit
def silu(x, EXACT: tl.constexpr):
    """x * sigmoid(x) of fp32; unless EXACT a few units in the last place off, which 16 bits do not show."""
    if EXACT:
        return divide(x, 1 + exp(-x))
    return x / (1 + tl.exp2(x * -1.4426950408889634))


def early_launch(x: torch.Tensor) -> dict[str, bool]:
    """Launch options of a kernel that opens with begin(): programmatic dependent launch where the GPU has it."""
    early = x.is_cuda and has_dependent_launch(x.device)
    return {'EARLY': True, 'launch_pdl': True} if early else {'EARLY': False}


@cache
def has_dependent_launch(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 4 for an interpreted run."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == 'cuda' else 4


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may use; that of a Hopper GPU for an interpreted run."""
    if device.type != 'cuda':
        return 232448
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def as_rows(x: torch.Tensor) -> tuple[int, int, int, int]:
    """(outer rows, inner rows, outer stride, inner stride) of rows without gaps (else ValueError)."""
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        raise ValueError(f'the last dimension must be contiguous, got strides {x.stride()} for shape {tuple(x.shape)}')
    if x.dim() == 1:
        return 1, 1, 0, 0
    if x.dim() == 2:
        return 1, x.shape[0], 0, x.stride(0)
    if x.dim() > 3:
        x = x.view(-1, *x.shape[-2:])
    return x.shape[0], x.shape[1], x.stride(0), x.stride(1)
