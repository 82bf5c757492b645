"""The network to train: a native transformers class, with an adapter or whole."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import load_tokenizer, native_checkpoint, raw_config
from swiftlite.checkpoint.config import read_config
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.train.model.attention import install_attention
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.loss import install_loss
from swiftlite.train.model.noise import add_noise
from swiftlite.train.model.quantized import keep_as_they_are, quantization, size
from swiftlite.train.model.tokens import make_room
from swiftlite.train.model.tuners import add_adapter, freeze
from swiftlite.train.scale.memory import gpu_errors
from swiftlite.train.scale.ranks import say

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
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_model(path: str, dtype: torch.dtype, **options: Any) -> Any:
    """The causal LM of a native checkpoint folder, without remote code; `options` are from_pretrained's.

    Raises:
        SwiftliteError: transformers cannot read it.
        torch.OutOfMemoryError: a GPU that it is read to is too small.
    """
    from transformers import AutoModelForCausalLM

    try:
        with gpu_errors():
            model, found = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except torch.OutOfMemoryError:
        raise
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
    keep_as_they_are(model)
    return model


def pass_overhead(model: nn.Module) -> float:
    """What a forward and backward pass costs beyond its tokens, in tokens: seconds to start it / seconds a token."""
    flops = 4e14 if torch.cuda.is_available() else 1e11
    start = 0.04 if torch.cuda.is_available() else 0.01
    return start * flops / (6 * parameter_counts(model)[1])


def recompute_activations(model: nn.Module) -> None:
    """Trade speed for memory: keep only the inputs of each layer for the backward pass."""
    enable = getattr(model, 'activation_checkpointing_enable', None) or model.gradient_checkpointing_enable
    enable({'use_reentrant': False})


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def make_model(
    args: SftArgs,
    base: str,
    dtype: torch.dtype,
    targets: list[str],
    load: Callable[..., Any] = load_model,
) -> tuple[Any, torch.dtype | None]:
    """(model, dtype its weights are saved in; None for an adapter)."""
    full = args.sft_type == 'full'
    if raw_config(base).get('quantization_config'):
        raise SwiftliteError(f'{base} is quantized: train the unquantized model')
    model = load(native_checkpoint(base), torch.float32 if full else dtype, **quantization(args, dtype))
    if args.new_special_tokens:
        tokenizer = load_tokenizer(base)
        tokenizer.add_tokens(args.new_special_tokens, special_tokens=True)
        make_room(model, tokenizer, len(args.new_special_tokens))
        if not full:  # their rows are trained, and all others with them
            whole = ['embed_tokens', *([] if model.config.tie_word_embeddings else ['lm_head'])]
            args = replace(args, modules_to_save=list(dict.fromkeys([*args.modules_to_save, *whole])))
    if full:
        freeze(model, args.freeze_parameters, args.freeze_parameters_ratio, args.trainable_parameters)
        if args.new_special_tokens and not model.get_input_embeddings().weight.requires_grad:
            raise UsageError(
                '--new_special_tokens are rows of the embeddings, which stay as they are: leave out freezing them, '
                'or give --trainable_parameters model.embed_tokens'
            )
        save_dtype = SAVED.get(read_config(base)['dtype'] or 'float32', torch.float32)
    else:
        model = add_adapter(model, args, targets, base)
        if args.new_special_tokens:  # peft would write the embeddings a second time, as they came
            model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
        save_dtype = None
    if args.neftune_noise_alpha:
        add_noise(model, args.neftune_noise_alpha)
    if args.use_kernels or (args.use_kernels is None and torch.cuda.is_available()):
        for line in install_kernels(model):
            say(f'note: no training kernels for {line}')
    trained, total = parameter_counts(model)
    what = 'all of them trained' if trained == total else f'{trained:,} trained{tuner(args, targets)}'
    say(f'model: {total:,} parameters, {what}; {str(dtype).removeprefix("torch.")}')
    if args.quantization_bit:
        say('note: the adapter is served and merged over the model as it was, not over its 4 bits')
    if not full and any(spec.startswith('self-cognition') for spec in args.dataset) and 'up_proj' not in targets:
        say('note: an identity is learnt better with --lora_target_modules ALL')
    return model, save_dtype


def tuner(args: SftArgs, targets: list[str]) -> str:
    """' (DoRA, rank 8, q_proj v_proj, over nf4)': what an adapter is, and where."""
    if args.sft_type == 'full':
        return ''
    kind = 'DoRA' if args.use_dora else 'rsLoRA' if args.use_rslora else 'LoRA'
    where = ' '.join(targets) if len(targets) <= 8 else f'{len(targets)} layers'
    parts = [kind, f'rank {args.lora_rank}', where]
    if args.init_lora_weights.lower() != 'true':
        parts.append(f'from {args.init_lora_weights.lower()}')
    if args.modules_to_save:
        parts.append(f'whole: {" ".join(args.modules_to_save)}')
    if args.quantization_bit:
        parts.append(f'over {args.bnb_4bit_quant_type}')
    return f' ({", ".join(parts)})'
