"""Adapters of peft in a model: how they start, what of them is trained at which rate, and what is saved.

LoRA arXiv 2106.09685, rsLoRA 2312.03732, DoRA 2402.09353, PiSSA 2404.02948, OLoRA 2406.01775, LoRA+ 2402.12354.
"""

import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.train.model.targets import covers

ADAPTER, CONFIG = 'adapter_model.safetensors', 'adapter_config.json'


def add_adapter(model: nn.Module, args: Any, targets: Sequence[str], base: str) -> Any:
    """A PEFT model whose trained weights are fp32; `base` is recorded as its base model.

    What goes on from a checkpoint starts plain: `restore` brings the weights.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import ModulesToSaveWrapper

    init = args.init_lora_weights.lower()
    moved = args.alters_base()
    if moved and torch.cuda.is_available():
        model.to(f'cuda:{os.environ.get("LOCAL_RANK", 0)}')  # where a factorisation takes no minutes
    plain = moved and args.resume_from_checkpoint
    whole = modules(model, args.modules_to_save)
    tied = model.config.tie_word_embeddings and any(name.endswith(('embed_tokens', 'lm_head')) for name in whole)
    config = LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=list(targets),
        modules_to_save=whole or None,
        ensure_weight_tying=tied,
        use_rslora=args.use_rslora,
        use_dora=args.use_dora,
        init_lora_weights=True if plain else {'true': True, 'false': False}.get(init, init),
        task_type='CAUSAL_LM',
    )
    dtype = model.dtype
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # peft on the newest transformers
        tuned = get_peft_model(model, config)
    config.base_model_name_or_path = base
    for module in tuned.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save.float()
            if not isinstance(module.original_module, nn.Linear):
                module.register_forward_hook(lambda _, __, output, dtype=dtype: output.to(dtype))
    if moved:
        tuned.adapter_start = {} if plain else {name: tensor.clone() for name, tensor in parts(tuned).items()}
    return tuned


def modules(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Whole names of the modules that `names` are, or end; UsageError for one that fits none."""
    every = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    every += ['lm_head'] if model.get_output_embeddings() is not None and 'lm_head' not in every else []
    for name in names:
        if not any(covers([name], each) for each in every):
            raise UsageError(f"--modules_to_save '{name}' is no module of the model{nearest(name, every)}")
    return [each for each in every if covers(names, each)]


def parts(model: Any) -> dict[str, torch.Tensor]:
    """A and B of every adapted layer, under the names of a saved adapter."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach() for name, tensor in state.items() if '.lora_A.' in name or '.lora_B.' in name}


def rebase(model: Any, folder: Path) -> None:
    """Let an adapter that was saved over an altered base (PiSSA, OLoRA) apply to the base as it was.

    W' + s B A with W' = W - s B0 A0 is W + s [B, -B0] [A; A0]: an adapter of twice the rank, exactly.
    """
    start = getattr(model, 'adapter_start', None)
    if start is None or not (folder / ADAPTER).is_file():
        return
    tensors = load_file(str(folder / ADAPTER))
    for name, first in start.items():
        second = first.to(tensors[name].device)
        a = '.lora_A.' in name
        tensors[name] = torch.cat([tensors[name], second if a else -second], dim=0 if a else 1).contiguous()
    save_file(tensors, str(folder / ADAPTER), metadata={'format': 'pt'})
    file = folder / CONFIG
    config = json.loads(file.read_text(encoding='utf-8'))
    config['lora_alpha'] *= math.sqrt(2) if config['use_rslora'] else 2
    config |= {'r': 2 * config['r'], 'init_lora_weights': True}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + '\n', encoding='utf-8')


def restore(model: Any, folder: Path) -> None:
    """The reverse of `rebase`: the trained weights into the model, and what it started from out of its base."""
    from peft import set_peft_model_state_dict

    tensors = load_file(str(folder / ADAPTER))
    start = {}
    for name in [name for name in tensors if '.lora_A.' in name or '.lora_B.' in name]:
        a = '.lora_A.' in name
        tensors[name], second = (part.contiguous() for part in tensors[name].chunk(2, dim=0 if a else 1))
        start[name] = second if a else -second
    found = set_peft_model_state_dict(model, tensors)
    if found.unexpected_keys:
        raise SwiftliteError(f'{folder / ADAPTER} holds {found.unexpected_keys[0]}, which the model does not have')
    for name, module in model.named_modules():
        if f'{name}.lora_A.weight' not in start:
            continue
        weight, scaling = module.get_base_layer().weight, module.scaling['default']
        a, b = (start[f'{name}.lora_{part}.weight'].to(weight.device) for part in 'AB')
        weight.data = (weight.data.float() - scaling * b @ a).to(weight.dtype)  # as peft computes it
    model.adapter_start = start


def parameter_groups(
    named: Sequence[tuple[str, nn.Parameter]], decayed: Sequence[str], rate: float, ratio: float, decay: float
) -> list[dict[str, Any]]:
    """Groups of an optimizer for LoRA+: B learns at `ratio` times the rate of everything else."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    kept = set(decayed)
    for name, parameter in named:
        if parameter.requires_grad:
            groups.setdefault(('.lora_B.' in name, name in kept), []).append(parameter)
    return [
        {'params': groups[key], 'lr': rate * (ratio if key[0] else 1.0), 'weight_decay': decay if key[1] else 0.0}
        for key in sorted(groups)  # the rate that is logged is the first group's: that of A
    ]


def freeze(model: nn.Module, names: Sequence[str], ratio: float, trained: Sequence[str]) -> None:
    """Keep parameters as they are: by the start of their name, and the first `ratio` of all; `trained` ones change.

    Raises:
        UsageError: a name fits no parameter, or none is left to train.
    """
    every = list(model.named_parameters())
    for flag, given in (('--freeze_parameters', names), ('--trainable_parameters', trained)):
        for start in given:
            if not any(name.startswith(start) for name, _ in every):
                raise UsageError(
                    f"{flag} '{start}' starts the name of no parameter{nearest(start, [name for name, _ in every])}"
                )
    left = ratio * sum(parameter.numel() for _, parameter in every)
    for name, parameter in every:
        left -= parameter.numel()
        stays = left >= 0 or name.startswith(tuple(names))
        parameter.requires_grad_(not stays or name.startswith(tuple(trained)))
    if not any(parameter.requires_grad for _, parameter in every):
        raise UsageError('every parameter is frozen: nothing is left to train')
