"""Which scale belongs to which element."""

import torch

E4M3_MAX = 448.0
SMALLEST_ROW_SCALE = 1 / (E4M3_MAX * 512)
SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # 1 / scale is finite


def scale_rows_and_columns(
    scale: torch.Tensor, shape: torch.Size, group_shape: tuple[int, int] | None
) -> tuple[torch.Tensor, int, int]:
    """(scale [T / a, n / b], a, b) of a static scale for an input [T, n]; ValueError when they do not fit."""
    rows, columns = shape
    if scale.dtype != torch.float32:
        raise ValueError(f'scale must be float32, got {scale.dtype}')
    if scale.numel() == 1:
        return scale.reshape(1, 1), max(rows, 1), max(columns, 1)
    if scale.dim() == 1:
        if group_shape is None:
            raise ValueError('a scale of one dimension needs group_shape: (1, -1) for rows, (-1, 1) for columns')
        scale = scale[:, None] if group_shape[1] == -1 else scale[None]
    if scale.dim() != 2 or not scale.numel() or rows % scale.shape[0] or columns % scale.shape[1]:
        raise ValueError(f'a scale {tuple(scale.shape)} does not divide an input {tuple(shape)}')
    a, b = rows // scale.shape[0], columns // scale.shape[1]
    if group_shape is not None:
        asked = tuple(whole if g == -1 else g for g, whole in zip(group_shape, shape, strict=True))
        if asked != (a, b):
            raise ValueError(f'groups of {asked} need another scale than {tuple(scale.shape)} for {tuple(shape)}')
    return scale, a, b
