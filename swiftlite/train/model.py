"""The network to train: a native transformers class, with LoRA or whole."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import native_checkpoint, raw_config
from swiftlite.checkpoint.config import read_config
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.registry.families import Family
from swiftlite.registry.resolve import get_family
from swiftlite.train.attention import install_attention
from swiftlite.train.loss import install_loss
from swiftlite.train.ranks import say, world_size

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}
SAVED = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': torch.float32}
LARGE = 1_000_000_000  # parameters from which activations are recomputed on a GPU


def resolve_dtype(name: str) -> torch.dtype:
    """--dtype: auto is bf16 on a GPU that has it (else fp16), fp32 on a CPU. UsageError for fp16 on a CPU."""
    gpu = torch.cuda.is_available()
    if name == 'fp16' and not gpu:
        raise UsageError('--dtype fp16 trains on a GPU only: use bf16 or fp32')
    if name != 'auto':
        return DTYPES[name]
    if not gpu:
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_model(path: str, dtype: torch.dtype) -> Any:
    """The causal LM of a native checkpoint folder, without remote code.

    Raises:
        SwiftliteError: transformers cannot read it.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SwiftliteError(f'the model in {path} cannot be loaded: {str(error).splitlines()[0]}') from error
    # transformers would fill what is not in the files with random numbers, and train it
    if found['mismatched_keys']:
        name, stored, wanted = min(found['mismatched_keys'])
        raise SwiftliteError(f"{path}: '{name}' has shape {list(stored)}, but config.json says {list(wanted)}")
    if found['missing_keys']:
        missing = sorted(found['missing_keys'])
        raise SwiftliteError(f'{path}: {len(missing)} tensor(s) missing, first: {missing[0]}')
    return ready(model)


def ready(model: Any) -> Any:
    """A transformers causal LM with what training it needs here."""
    install_attention(model)
    install_loss(model)
    return model


def target_modules(family: Family, wanted: Sequence[str]) -> list[str]:
    """Names for --lora_target_modules: DEFAULT, ALL (all-linear) or names of linear layers.

    Raises:
        UsageError: a name fits no linear layer.
    """
    linear = family.all_linear
    chosen: dict[str, None] = {}
    for name in wanted:
        if name.upper() in ('ALL', 'ALL-LINEAR'):
            chosen.update(dict.fromkeys(family.all_linear))
        elif name.upper() in ('DEFAULT', 'AUTO'):
            chosen.update(dict.fromkeys(family.lora_targets))
        elif name.rpartition('.')[2] in linear:
            chosen[name] = None
        elif name.rpartition('.')[2] == 'lm_head':
            raise UsageError(
                '--lora_target_modules lm_head is refused: an adapter of the output layer cannot be served'
            )
        else:
            options = ['DEFAULT', 'ALL', *sorted(linear)]
            hint = nearest(name, options)
            raise UsageError(f"--lora_target_modules '{name}' is no linear layer; valid are {', '.join(options)}{hint}")
    return list(chosen)


def add_lora(model: nn.Module, args: Any, targets: list[str], base: str) -> Any:
    """A PEFT model with fp32 adapter weights; `base` is recorded as its base model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        use_rslora=args.use_rslora,
        task_type='CAUSAL_LM',
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # peft on the newest transformers
        model = get_peft_model(model, config)
    config.base_model_name_or_path = base
    return model


def pass_overhead(model: nn.Module) -> float:
    """What a forward and backward pass costs beyond its tokens, in tokens: seconds to start it / seconds a token."""
    if world_size() > 1:
        return math.inf  # all processes must take the same number of passes
    flops = 4e14 if torch.cuda.is_available() else 1e11
    start = 0.04 if torch.cuda.is_available() else 0.01
    return start * flops / (6 * parameter_counts(model)[1])


def recompute_activations(model: nn.Module) -> None:
    """Trade speed for memory: keep only the inputs of each layer for the backward pass."""
    enable = getattr(model, 'activation_checkpointing_enable', None) or model.gradient_checkpointing_enable
    enable({'use_reentrant': False})


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def lora_targets(args: SftArgs, base: str) -> list[str]:
    """The linear layers that get an adapter, none where all weights are trained."""
    family = get_family((raw_config(base).get('architectures') or ['none'])[0])
    return target_modules(family, args.lora_target_modules) if args.sft_type == 'lora' else []


def make_model(
    args: SftArgs,
    base: str,
    dtype: torch.dtype,
    targets: list[str],
    load: Callable[[str, torch.dtype], Any] = load_model,
) -> tuple[Any, torch.dtype | None]:
    """(model, dtype its weights are saved in; None for an adapter)."""
    full = args.sft_type == 'full'
    if raw_config(base).get('quantization_config'):
        raise SwiftliteError(f'{base} is quantized: train the unquantized model')
    model = load(native_checkpoint(base), torch.float32 if full else dtype)
    if full:
        save_dtype = SAVED.get(read_config(base)['dtype'] or 'float32', torch.float32)
    else:
        model = add_lora(model, args, targets, base)
        save_dtype = None
    trained, total = parameter_counts(model)
    what = 'all of them trained' if full else f'{trained:,} trained (LoRA, rank {args.lora_rank}, {" ".join(targets)})'
    say(f'model: {total:,} parameters, {what}; {str(dtype).removeprefix("torch.")}')
    if not full and any(spec.startswith('self-cognition') for spec in args.dataset) and 'up_proj' not in targets:
        say('note: an identity is learnt better with --lora_target_modules ALL')
    wanted = args.gradient_checkpointing
    if wanted or (wanted is None and torch.cuda.is_available() and total >= LARGE):
        recompute_activations(model)
    return model, save_dtype
