"""Which modules of a model an adapter changes: from DEFAULT, ALL, names and patterns to whole names."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from swiftlite.checkpoint import raw_config, read_config
from swiftlite.checkpoint.adapter import linear_shape
from swiftlite.errors import UsageError, nearest
from swiftlite.registry.families import Family
from swiftlite.registry.resolve import get_family

PARTS = ('self_attn', 'mlp')  # of a decoder layer, where its linear layers are
WHOLE = ('embed_tokens', 'lm_head', 'norm', 'input_layernorm', 'post_attention_layernorm')  # --modules_to_save
PATTERN = set('*+?()[]{}|^$\\')  # what a name never has


def lora_targets(args: Any, base: str) -> list[str]:
    """The linear layers that get an adapter, as peft takes them; none where all weights are trained.

    Raises:
        UsageError: a name or a pattern fits no linear layer, or the rank is above what a layer can have.
    """
    if args.sft_type != 'lora':
        return []
    family = get_family((raw_config(base).get('architectures') or ['none'])[0])
    config = read_config(base)
    linear = linear_modules(family, config)
    if args.target_regex is not None:
        targets = matching(args.target_regex, linear, '--target_regex')
    else:
        targets = target_modules(family, linear, args.lora_target_modules)
    check_whole(family, args, targets)
    if args.alters_base():
        for name in linear:
            shape = linear_shape(config, name)
            if shape and covers(targets, name) and args.lora_rank > min(shape):
                raise UsageError(
                    f'--lora_rank {args.lora_rank} is above the {min(shape)} that {name} has: '
                    f'--init_lora_weights {args.init_lora_weights} takes its start from them'
                )
    return targets


def linear_modules(family: Family, config: dict[str, Any]) -> list[str]:
    """Whole names of the linear layers of a native config: 'model.layers.0.self_attn.q_proj', ..."""
    return [
        name
        for layer in range(config['num_hidden_layers'])
        for part in PARTS
        for leaf in family.all_linear
        if linear_shape(config, name := f'model.layers.{layer}.{part}.{leaf}') is not None
    ]


def target_modules(family: Family, linear: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """Names for --lora_target_modules: DEFAULT, ALL (all-linear), ends of names of linear layers, or one pattern."""
    leaves = family.all_linear
    chosen: dict[str, None] = {}
    for name in wanted:
        if name.upper() in ('ALL', 'ALL-LINEAR'):
            chosen.update(dict.fromkeys(leaves))
        elif name.upper() in ('DEFAULT', 'AUTO'):
            chosen.update(dict.fromkeys(family.lora_targets))
        elif PATTERN & set(name):
            chosen.update(dict.fromkeys(matching(name, linear, '--lora_target_modules')))
        elif any(covers([name], each) for each in linear):
            chosen[name] = None
        elif name.rpartition('.')[2] == 'lm_head':
            raise UsageError(
                '--lora_target_modules lm_head is refused: an adapter of the output layer cannot be served; '
                '--modules_to_save lm_head trains it whole'
            )
        else:
            options = ['DEFAULT', 'ALL', *sorted(leaves)]
            hint = nearest(name, [*options, *linear])
            raise UsageError(f"--lora_target_modules '{name}' is no linear layer; valid are {', '.join(options)}{hint}")
    return list(chosen)


def matching(pattern: str, linear: Sequence[str], flag: str) -> list[str]:
    """The linear layers whose whole name fits a pattern; UsageError for none, or for what is no pattern."""
    try:
        found = [name for name in linear if re.fullmatch(pattern, name)]
    except re.error as error:
        raise UsageError(f"{flag} '{pattern}' is no pattern: {error}") from None
    if not found:
        near = f"; did you mean '.*{pattern}'?" if any(re.search(pattern, name) for name in linear) else ''
        raise UsageError(
            f"{flag} '{pattern}' fits no linear layer: it must fit whole names, from {linear[0]} to {linear[-1]}{near}"
        )
    return found


def covers(names: Iterable[str], module: str) -> bool:
    """Whether a module is one of these names, or ends in one, as peft decides it."""
    return any(module == name or module.endswith(f'.{name}') for name in names)


def check_whole(family: Family, args: Any, targets: Sequence[str]) -> None:
    """Refuse --modules_to_save that are no modules, that have an adapter already, or that are held in 4 bits."""
    valid = (*WHOLE, *(('q_norm', 'k_norm') if family.qk_norm else ()), *family.all_linear)
    for name in args.modules_to_save:
        leaf = name.rpartition('.')[2]
        if leaf not in valid:
            raise UsageError(
                f"--modules_to_save '{name}' is no module; valid are {', '.join(valid)}{nearest(name, valid)}"
            )
        if covers(targets, name) or any(covers([name], target) for target in targets):
            raise UsageError(f"--modules_to_save '{name}' has an adapter already: leave it out of one of both")
        if args.quantization_bit and leaf in family.all_linear:
            raise UsageError(f"--modules_to_save '{name}' is held in 4 bits, which cannot be trained")
