"""PEFT LoRA adapters (adapter_config.json + adapter_model.safetensors) under native module names."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from swiftlite.checkpoint.config import read_json
from swiftlite.checkpoint.mappings import MAPPINGS, Mapping
from swiftlite.checkpoint.native import save_tensors, write_json
from swiftlite.checkpoint.tensors import all_finite, iter_file
from swiftlite.errors import SwiftliteError

_PREFIX = 'base_model.model.'
_PART = re.compile(  # the module, and which of its parts
    r'(?:base_model\.model\.)?(.+)\.(?:(lora_[AB])(?:\.default)?\.weight|'
    r'(lora_magnitude_vector|lora_embedding_[AB])(?:\.default)?(?:\.weight)?|'
    r'(base_layer)\.weight)'
)
EMBEDDING = 'model.embed_tokens'
# Options that change what an adapter computes; any other value than these is refused.
_SUPPORTED: dict[str, tuple] = {
    'bias': ('none', None),
    'fan_in_fan_out': (False, None),
    'lora_bias': (False, None),
    'layer_replication': (None, []),
    'target_parameters': (None, []),
    'trainable_token_indices': (None, [], {}),
    'alora_invocation_tokens': (None, []),
    'use_qalora': (False, None),
    'use_bdlora': (None, False),
    'arrow_config': (None, {}),
    'kasa_config': (None, {}),
    'velora_config': (None, {}),
    'monteclora_config': (None, {}),
}
# Options of adapters that are merged exactly, but not served beside the base.
_MERGED_ONLY: dict[str, tuple] = {'use_dora': (False, None), 'modules_to_save': (None, [])}
# Initialisations that leave the base as it is; the others (PiSSA, OLoRA, LoftQ, ...) train on an altered base.
_PLAIN_INIT = (True, False, None, 'true', 'false', 'gaussian', 'eva', 'orthogonal')


@dataclass
class LoRAWeights:
    """delta W = scaling * b @ a; a [r, in], b [out, r].

    With a `magnitude` [out] (DoRA, arXiv 2402.09353) the rows of W + delta W are scaled to these lengths.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def same(self, other: 'LoRAWeights') -> bool:
        """Whether both change a weight in the same way, number for number."""
        tensors = (self.a, other.a), (self.b, other.b)
        return self.scaling == other.scaling and all(torch.equal(x, y) for x, y in tensors)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight` [out, in] with the adapter in it, in fp32."""
        merged = weight.float() + self.scaling * (self.b.float() @ self.a.float())
        if self.magnitude is None:
            return merged
        return merged * (self.magnitude.float() / merged.norm(dim=1))[:, None]


@dataclass
class Adapter:
    config: dict  # adapter_config.json as it stands
    modules: dict[str, LoRAWeights] = field(default_factory=dict)  # by native path 'model.layers.0.self_attn.q_proj'
    replaced: dict[str, torch.Tensor] = field(default_factory=dict)  # whole tensors (modules_to_save) by native name

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """'model.layers.0.self_attn.q_proj.lora_A' -> tensor."""
        found: dict[str, torch.Tensor] = {}
        for path, weights in self.modules.items():
            found[f'{path}.lora_A'], found[f'{path}.lora_B'] = weights.a, weights.b
        return found

    @property
    def vocab_size(self) -> int | None:
        """Rows of the embeddings or the output layer, where they are replaced."""
        names = ('model.embed_tokens.weight', 'lm_head.weight')
        return next((len(self.replaced[name]) for name in names if name in self.replaced), None)

    @property
    def max_rank(self) -> int:
        return max((weights.rank for weights in self.modules.values()), default=0)


def read_adapter(path: str | Path, config: dict | None = None, *, merging: bool = False) -> Adapter:
    """The LoRA adapter in a folder, in its own dtype, on the CPU.

    Adapters trained on fused upstream modules (Qwen v1 `c_attn`) come out as one pair a native module: the same A,
    the module's rows of B. `config` is the base's native config: with it every shape is checked. `merging` also reads
    what is merged only: DoRA magnitudes and whole tensors.

    Raises:
        SwiftliteError: files are missing or damaged, an option is not supported, or a tensor has a wrong name, a
            wrong shape or values that are not finite; the sentence names it.
    """
    folder = Path(path)
    settings = adapter_config(folder, merging=merging)
    file = weights_file(folder)
    adapter = assembled(file, settings, iter_file(file, in_memory=True))
    if config is not None:
        check_shapes(adapter, config, folder)
    return adapter


def assembled(
    file: Path, settings: dict, tensors: Iterable[tuple[str, torch.Tensor]], check_values: bool = True
) -> Adapter:
    """The adapter that the (name, tensor) of its file make, whose matrices are views of the tensors.

    check_values: refuse numbers that are not finite.
    """
    folder = file.parent
    pairs, replaced = _pairs(file, tensors, bool(settings.get('modules_to_save')))
    adapter = Adapter(settings, replaced=replaced)
    for module, pair in pairs.items():
        rank, scaling = rank_and_scaling(settings, module)
        a, b = _checked(folder, module, _as_linear(folder, settings, module, pair), rank, check_values)
        targets = native_modules(module)
        if b.shape[0] % len(targets):
            raise SwiftliteError(
                f'{folder}: lora_B of {module} has {b.shape[0]} rows, which do not divide by {len(targets)}'
            )
        magnitudes = _magnitude(folder, settings, module, pair, len(b)).chunk(len(targets))
        for target, rows, magnitude in zip(targets, b.chunk(len(targets)), magnitudes, strict=True):
            adapter.modules[target] = LoRAWeights(a, rows, scaling, magnitude if settings.get('use_dora') else None)
    return adapter


AdapterState = tuple[tuple[str, int, int], ...]


def adapter_state(path: str | Path) -> AdapterState:
    """Name, size in bytes and time of change of an adapter's files: another state, perhaps another adapter.

    Raises:
        SwiftliteError: the folder holds no adapter.
    """
    folder = Path(path)
    check_folder(folder)
    files = [folder / 'adapter_config.json', weights_file(folder)]
    try:
        return tuple((file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in files)
    except OSError as error:
        raise SwiftliteError(f'{folder} cannot be read: {error.strerror}') from None


def adapter_config(path: str | Path, *, merging: bool = False) -> dict:
    """adapter_config.json of a folder, refused if it asks for what swiftlite does not compute."""
    folder = Path(path)
    check_folder(folder)
    return supported(folder, read_json(folder / 'adapter_config.json'), merging=merging)


def supported(folder: Path, settings: dict, *, merging: bool = False) -> dict:
    """The settings of an adapter, refused if they ask for what swiftlite does not compute."""
    if str(settings.get('peft_type', 'LORA')).upper() != 'LORA':
        raise SwiftliteError(f'{folder} is a {settings["peft_type"]} adapter; only LORA is supported')
    _check_ranks(folder, settings)
    for option, valid in _SUPPORTED.items():
        if option in settings and settings[option] not in valid:
            raise SwiftliteError(
                f'{folder} uses {option}={settings[option]!r}, which is not supported; merge it with peft first'
            )
    for option, valid in () if merging else _MERGED_ONLY.items():
        if option in settings and settings[option] not in valid:
            raise SwiftliteError(
                f'{folder} uses {option}={settings[option]!r}, which is not served beside the base: '
                f'merge it with swiftlite export --ckpt_dir {shlex.quote(str(folder))} --merge_lora true'
            )
    init = settings.get('init_lora_weights', True)
    if (init.lower() if isinstance(init, str) else init) not in _PLAIN_INIT:
        raise SwiftliteError(
            f'{folder} was trained with init_lora_weights={init!r} on an altered base; convert it with peft first'
        )
    return settings


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of a PEFT adapter."""
    if not folder.is_dir():
        raise SwiftliteError(f'{folder} is not a folder; a PEFT adapter folder is needed')
    if not (folder / 'adapter_config.json').is_file():
        raise SwiftliteError(f'{folder} is not a PEFT adapter: it has no adapter_config.json')


def weights_file(folder: Path) -> Path:
    """The file with an adapter's weights; SwiftliteError: there is none."""
    names = 'adapter_model.safetensors', 'adapter_model.bin'
    for file in (folder / name for name in names):
        if file.is_file():
            return file
    raise SwiftliteError(f'{folder} has no adapter weights: neither {names[0]} nor {names[1]}')


def _check_ranks(folder: Path, settings: dict) -> None:
    """Refuse ranks that are no positive integers, alphas that are no finite numbers, patterns that are no regexes."""
    for option, patterns, types in (('r', 'rank_pattern', int), ('lora_alpha', 'alpha_pattern', (int, float))):
        given = settings.get(patterns) or {}
        if not isinstance(given, dict):
            raise SwiftliteError(f'{folder}: {patterns} of adapter_config.json must be an object, not {given!r:.50}')
        for name, value in {option: settings.get(option, 8), **given}.items():
            good = isinstance(value, types) and not isinstance(value, bool) and abs(value) < 1e30
            if not good or (option == 'r' and value < 1):
                what = 'a positive integer' if option == 'r' else 'a finite number'
                where = option if name == option else f'{patterns} for {name}'
                raise SwiftliteError(f'{folder}: {where} of adapter_config.json must be {what}, not {value!r:.50}')
            try:
                re.compile(name)
            except re.error as error:
                raise SwiftliteError(f'{folder}: {patterns} holds {name!r}, which is no pattern: {error}') from None


def rank_and_scaling(settings: dict, module: str) -> tuple[int, float]:
    """Rank and scaling (alpha / r, rsLoRA alpha / sqrt(r)) of a module; patterns match path ends, as in PEFT."""
    rank = _pattern(settings.get('rank_pattern'), module, settings.get('r', 8))
    alpha = _pattern(settings.get('alpha_pattern'), module, settings.get('lora_alpha', 8))
    return rank, alpha / (rank**0.5 if settings.get('use_rslora') else rank)


def _pattern(patterns: dict[str, int] | None, module: str, default: int) -> int:
    for pattern, value in (patterns or {}).items():
        if re.match(rf'(.*\.)?({pattern})$', module):
            return value
    return default


def native_modules(module: str) -> tuple[str, ...]:
    """Native module paths an adapted module covers: itself, or the parts of an upstream module."""
    for mapping in MAPPINGS.values():
        if (targets := mapping.modules(module)) is not None:
            return targets
    return (module,)


def _pairs(
    file: Path, tensors: Iterable[tuple[str, torch.Tensor]], saved: bool
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """The parts of each adapted module, and the whole tensors where `saved` allows them."""
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    replaced: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise SwiftliteError(f'{file} holds {name}, which is no tensor')
        if (match := _PART.fullmatch(name)) is not None:
            pairs.setdefault(match.group(1), {})[match.group(2) or match.group(3) or match.group(4)] = tensor
        elif saved and 'lora_' not in name:
            if not tensor.is_floating_point() or not all_finite(tensor):
                raise SwiftliteError(f'{file.parent}: {name} holds values that are not finite numbers')
            replaced[name.removeprefix(_PREFIX)] = tensor
        else:
            raise SwiftliteError(f'{file} holds {name}, which is no LoRA weight of a linear layer')
    if not pairs:
        raise SwiftliteError(f'{file} holds no LoRA weights')
    return pairs, replaced


def _as_linear(folder: Path, settings: dict, module: str, pair: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The pair of a weight matrix: an embedding's A [r, vocab] and B [hidden, r] are one of its [vocab, hidden].

    peft saves the base's frozen embedding beside them, which says only how large the vocabulary was.
    """
    a, b = pair.get('lora_embedding_A'), pair.get('lora_embedding_B')
    if a is None and b is None:
        linear = pair
    elif a is None or b is None or a.dim() != 2 or b.dim() != 2:
        raise SwiftliteError(f'{folder}: {module} has no two matrices lora_embedding_A and lora_embedding_B')
    elif settings.get('use_dora'):
        raise SwiftliteError(f'{folder}: {module} is an embedding with use_dora=True, which is not supported')
    else:
        linear = {'lora_A': b.t(), 'lora_B': a.t()}
    base, rows = pair.get('base_layer'), linear.get('lora_B')
    if base is not None and rows is not None and base.shape[0] != rows.shape[0]:
        raise SwiftliteError(
            f'{folder}: {module} has {base.shape[0]} rows in the base, but its adapter has {rows.shape[0]}'
        )
    return linear


def _magnitude(folder: Path, settings: dict, module: str, pair: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    """DoRA's magnitudes [rows]; ones for a LoRA."""
    found = pair.get('lora_magnitude_vector')
    if found is None and not settings.get('use_dora'):
        return torch.ones(rows)
    if found is None or not settings.get('use_dora'):
        raise SwiftliteError(
            f'{folder}: use_dora is {settings.get("use_dora", False)}, but {module} has '
            f'{"no" if found is None else "a"} lora_magnitude_vector'
        )
    if found.numel() != rows or not found.is_floating_point() or not all_finite(found):
        raise SwiftliteError(f'{folder}: lora_magnitude_vector of {module} is not {rows} finite numbers')
    return found.reshape(rows)


def _checked(
    folder: Path, module: str, pair: dict[str, torch.Tensor], rank: int, values: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    for name in ('lora_A', 'lora_B'):
        if name not in pair:
            raise SwiftliteError(f'{folder} has no {name} for {module}')
        if pair[name].dim() != 2 or not pair[name].is_floating_point():
            raise SwiftliteError(f'{folder}: {name} of {module} is no matrix of floating-point numbers')
        if values and not all_finite(pair[name]):
            raise SwiftliteError(f'{folder}: {name} of {module} holds values that are not finite')
    a, b = pair['lora_A'], pair['lora_B']
    if a.shape[0] != rank or b.shape[1] != rank:
        raise SwiftliteError(
            f'{folder}: {module} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, not rank {rank}'
        )
    return a, b


def linear_shape(config: dict, module: str) -> tuple[int, int] | None:
    """(out, in) of the linear layer at a module path of a native decoder config, None if there is no such layer."""
    hidden, width = config['hidden_size'], config.get('intermediate_size', 0)
    query = config['num_attention_heads'] * config['head_dim']
    kv = config['num_key_value_heads'] * config['head_dim']
    shapes = {
        'self_attn.q_proj': (query, hidden),
        'self_attn.k_proj': (kv, hidden),
        'self_attn.v_proj': (kv, hidden),
        'self_attn.o_proj': (hidden, query),
        'mlp.gate_proj': (width, hidden),
        'mlp.up_proj': (width, hidden),
        'mlp.down_proj': (hidden, width),
    }
    if module in ('lm_head', EMBEDDING):
        return config['vocab_size'], hidden
    match = re.fullmatch(r'model\.layers\.(\d+)\.(.+)', module)
    return shapes.get(match.group(2)) if match and int(match.group(1)) < config['num_hidden_layers'] else None


def check_shapes(adapter: Adapter, config: dict, folder: str | Path) -> None:
    """Raise SwiftliteError if a module does not exist in the base of this native config or has another shape there."""
    for module, weights in adapter.modules.items():
        shape = linear_shape(config, module)
        if shape is None:
            raise SwiftliteError(f'{folder} adapts {module}, which the base model does not have')
        if (weights.b.shape[0], weights.a.shape[1]) != shape:
            raise SwiftliteError(
                f'{folder} adapts {module} as {weights.b.shape[0]} x {weights.a.shape[1]}, but the base model has '
                f'{shape[0]} x {shape[1]}; it was trained on another model'
            )


def write_adapter(path: str | Path, adapter: Adapter, mapping: Mapping | None = None) -> None:
    """Write a PEFT adapter folder that peft loads.

    With a mapping the modules get their upstream names; parts of one fused module become one pair of the summed rank
    (A stacked, B block-diagonal, missing parts zero), which computes the same; DoRA has no such form.

    Args:
        adapter: modules by native path; `config` supplies the other PEFT options.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    modules = adapter.modules if mapping is None else _fused(adapter.modules, mapping)
    settings = {**adapter.config, 'peft_type': 'LORA', 'use_rslora': False}
    ranks = {name: weights.rank for name, weights in modules.items()}
    alphas = {name: weights.rank * weights.scaling for name, weights in modules.items()}
    settings['r'], settings['rank_pattern'] = _defaults(ranks)
    settings['lora_alpha'], settings['alpha_pattern'] = _defaults(alphas)
    settings['use_dora'] = any(weights.magnitude is not None for weights in modules.values())
    if mapping is not None or not settings.get('target_modules'):
        settings['target_modules'] = sorted(modules)
    tensors = {}
    for name, weights in modules.items():
        if name == EMBEDDING or (mapping is not None and mapping.modules(name) == (EMBEDDING,)):
            tensors[f'{_PREFIX}{name}.lora_embedding_A'] = weights.b.t().contiguous().clone()
            tensors[f'{_PREFIX}{name}.lora_embedding_B'] = weights.a.t().contiguous().clone()
            continue
        tensors[f'{_PREFIX}{name}.lora_A.weight'] = weights.a.contiguous().clone()
        tensors[f'{_PREFIX}{name}.lora_B.weight'] = weights.b.contiguous().clone()
        if weights.magnitude is not None:
            tensors[f'{_PREFIX}{name}.lora_magnitude_vector'] = weights.magnitude.contiguous().clone()
    tensors |= {f'{_PREFIX}{name}': tensor for name, tensor in adapter.replaced.items()}
    save_tensors(tensors, folder / 'adapter_model.safetensors')
    write_json(folder / 'adapter_config.json', settings)


def _defaults(values: dict) -> tuple[float, dict]:
    """The commonest value, and the modules that differ from it as exact patterns."""
    counts = sorted(values.values(), key=list(values.values()).count)
    common = counts[-1]
    return common, {re.escape(name): value for name, value in values.items() if value != common}


def _fused(modules: dict[str, LoRAWeights], mapping: Mapping) -> dict[str, LoRAWeights]:
    groups: dict[str, dict[int, LoRAWeights]] = {}
    chunks: dict[str, int] = {}
    for name, weights in modules.items():
        place = mapping.upstream(name)
        if place is None:
            raise SwiftliteError(f'{name} has no counterpart in a {mapping.architecture} checkpoint')
        source, index, chunks[source] = place
        groups.setdefault(source, {})[index] = weights
    fused = {}
    for source, parts in groups.items():
        if chunks[source] == 1:
            fused[source] = parts[0]
            continue
        if any(part.magnitude is not None for part in parts.values()):
            raise SwiftliteError(
                f'{source} is one layer in a {mapping.architecture} checkpoint: merge the DoRA instead'
            )
        rows = next(iter(parts.values())).b.shape[0]
        b = torch.zeros(rows * chunks[source], sum(part.rank for part in parts.values()))
        column = 0
        for index, part in sorted(parts.items()):  # scaling folded into B
            b[rows * index : rows * (index + 1), column : column + part.rank] = part.b.float() * part.scaling
            column += part.rank
        a = torch.cat([part.a.float() for _, part in sorted(parts.items())])
        fused[source] = LoRAWeights(a, b, 1.0)
    return fused
