"""Quantisation to fp8 in torch."""

import torch

from swiftlite_kernels.quant.groups import E4M3_MAX, SMALLEST_ROW_SCALE, SMALLEST_SCALE


def scaled_fp8_quant(output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, rows: int, columns: int) -> None:
    """scale [T / rows, n / columns]."""
    wide = scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    write(output, input.float() * (1 / wide))


def dynamic_scaled_fp8_quant(
    output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, scale_ub: torch.Tensor | None
) -> None:
    if scale.dim() == 2:
        quantize_rows(output, input, scale, scale_ub)
    else:
        quantize_whole(output, input, scale)


def quantize_whole(output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor) -> None:
    largest = input.abs().amax().float() if input.numel() else torch.zeros((), device=input.device)
    scale.copy_((largest / E4M3_MAX).clamp(min=SMALLEST_SCALE))
    write(output, input.float() * (1 / scale))


def quantize_rows(
    output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, scale_ub: torch.Tensor | None
) -> None:
    largest = input.abs().amax(1, keepdim=True).float()
    if scale_ub is not None:
        largest = torch.minimum(largest, scale_ub)
    scale[: input.shape[0]] = (largest / E4M3_MAX).clamp(min=SMALLEST_ROW_SCALE)
    scale[input.shape[0] :] = SMALLEST_ROW_SCALE
    write(output, input.float() / scale[: input.shape[0]])


def write(output: torch.Tensor, x: torch.Tensor) -> None:
    output[: x.shape[0]] = x.clamp(-E4M3_MAX, E4M3_MAX).to(output.dtype)
    if output.shape[0] > x.shape[0]:
        output[x.shape[0] :].view(torch.uint8).zero_()
