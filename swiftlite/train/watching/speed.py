"""How much of a GPU a training step uses: the products it needs, and what the GPU could do."""

from typing import Any

import numpy as np
import torch
from torch import nn

# dense bf16 TFLOP/s of the makers' data sheets, by a part of the name that torch gives; the first that fits counts
PEAKS = {
    'B300': 2250,
    'B200': 2250,
    'H20': 148,  # and not H200
    'H100 PCIe': 756,
    'H100 NVL': 835,
    'H800 PCIe': 756,
    'H200': 989,
    'H100': 989,
    'H800': 989,
    'GH200': 989,
    'A100': 312,
    'A800': 312,
    'A40': 150,
    'A30': 165,
    'A10G': 70,
    'A10': 125,
    'L40S': 362,
    'L40': 181,
    'L4': 121,
    'RTX 6000 Ada': 364,
    'RTX 5090': 210,
    'RTX 4090': 165,
    'RTX 3090': 71,
}


def peak_flops(dtype: torch.dtype) -> float | None:
    """FLOP/s of this process's GPU in products of `dtype`, where they are known."""
    if not torch.cuda.is_available() or dtype not in (torch.bfloat16, torch.float16):
        return None
    return known_peak(torch.cuda.get_device_name())


def known_peak(name: str) -> float | None:
    """FLOP/s of a GPU by its name, bf16 without sparsity."""
    words = name.replace('-', ' ').split()
    for part, peak in PEAKS.items():
        if all(word in words for word in part.split()):
            return peak * 1e12
    return None


def token_length(lengths: np.ndarray) -> float:
    """Tokens of the row that a token is in, on average: what attention costs a token goes with it."""
    sizes = lengths.astype(np.float64)
    return float((sizes**2).sum() / max(sizes.sum(), 1))


def token_flops(model: nn.Module, length: float) -> float:
    """Products a token of training needs, in rows of `length` tokens; what is computed twice to save memory is not.

    A weight costs 2 in the forward pass, 2 for the gradient of its input and 2 for its own where it is trained (Kaplan
    et al., arXiv 2001.08361, appendix B); embeddings are looked up. Attention sees half of a row.
    """
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, 'get_text_config') else config
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    tied = model.get_output_embeddings().weight is embedding  # type: ignore[operator]
    total = 0.0
    for parameter in model.parameters():
        if parameter.dim() < 2 or (parameter is embedding and not tied):
            continue
        total += parameter_size(parameter) * (6 if parameter.requires_grad else 4)
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    width = getattr(config, 'head_dim', None) or config.hidden_size // heads
    return total + 3 * layers * 4 * (length / 2) * heads * width


def parameter_size(parameter: torch.Tensor) -> int:
    """Weights in a parameter, also where it is stored in 4 bits or left to another process."""
    state = getattr(parameter, 'quant_state', None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
