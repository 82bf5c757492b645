"""Quantisation of activations."""

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.quant.groups import scale_rows_and_columns

__all__ = ['scaled_fp8_quant']


def scaled_fp8_quant(
    input: torch.Tensor,
    scale: torch.Tensor | None = None,
    num_token_padding: int | None = None,
    scale_ub: torch.Tensor | None = None,
    use_per_token_if_dynamic: bool = False,
    output: torch.Tensor | None = None,
    group_shape: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input / scale saturated to float8_e4m3fn, scale).

    input [T, n] fp32, fp16 or bf16, rows may be strided; the result has max(T, num_token_padding) rows, those past T
    are zeros. output: where it is written instead, [T, n] (num_token_padding must be None then).

    scale fp32, static: one number, or [T / a, n / b] of groups of a rows and b columns: [T, 1] a row, [1, n] a column;
    a scale of one dimension needs group_shape, where -1 is the whole: (1, -1) rows, (-1, 1) columns. The input is
    multiplied by 1 / scale.
    None: scale = max |input| / 448, one for all [1], multiplied in the same way; use_per_token_if_dynamic: one a row
    [rows, 1], divided by, the maximum cut off at scale_ub (one number) and the scale at least 1 / (448 * 512).
    """
    if input.dim() != 2:
        raise ValueError(f'input must have two dimensions, got shape {tuple(input.shape)}')
    rows = max(input.shape[0], num_token_padding or 0)
    if output is None:
        output = torch.empty(rows, input.shape[1], dtype=torch.float8_e4m3fn, device=input.device)
    elif num_token_padding is not None:
        raise ValueError('num_token_padding and output cannot both be given')
    elif output.dtype != torch.float8_e4m3fn or output.shape != input.shape:
        raise ValueError(f'output must be float8_e4m3fn {tuple(input.shape)}, got {output.dtype} {tuple(output.shape)}')
    if scale is not None:
        groups = scale_rows_and_columns(scale, input.shape, group_shape)
        backend('quant', input).scaled_fp8_quant(output, input, *groups)
        return output, scale
    if scale_ub is not None and not use_per_token_if_dynamic:
        raise ValueError('scale_ub is of scales a row: set use_per_token_if_dynamic')
    shape = (rows, 1) if use_per_token_if_dynamic else (1,)
    scale = torch.empty(shape, dtype=torch.float32, device=input.device)
    backend('quant', input).dynamic_scaled_fp8_quant(output, input, scale, scale_ub)
    return output, scale
