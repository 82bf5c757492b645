"""A frozen base in 4 bits under an adapter that is trained (QLoRA, arXiv 2305.14314)."""

import importlib.util
import os
from typing import Any

import torch
from torch import nn

from swiftlite.errors import SwiftliteError

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}


def check_quantization(args: Any) -> None:
    """Refuse --quantization_bit where bitsandbytes is not installed."""
    if args.quantization_bit and importlib.util.find_spec('bitsandbytes') is None:
        raise SwiftliteError("--quantization_bit 4 needs bitsandbytes: pip install 'swiftlite[qlora]'")


def quantization(args: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained takes to quantize linear layers while it reads them; nothing without --quantization_bit."""
    if not args.quantization_bit:
        return {}
    check_quantization(args)
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=DTYPES.get(args.bnb_4bit_comp_dtype, dtype),
    )
    device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if torch.cuda.is_available() else 'cpu'
    return {'quantization_config': config, 'device_map': {'': device}}


def keep_as_they_are(model: nn.Module) -> None:
    """Without it bitsandbytes repacks weights on some CPUs when a model is evaluated, and rounds their scales."""
    for module in model.modules():
        if hasattr(module, 'support_avx512bf16_for_cpu'):
            module.support_avx512bf16_for_cpu = False


def size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter: of a packed one those it stands for."""
    state = getattr(parameter, 'quant_state', None)
    return parameter.numel() if state is None else state.shape.numel()
