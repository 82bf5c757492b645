"""`config.json` and `generation_config.json` with native names and one spelling for every key."""

import json
from pathlib import Path
from typing import Any

from swiftlite.checkpoint.mappings import Mapping, mapping_of
from swiftlite.errors import SwiftliteError

SAMPLING_FIELDS = ('temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty')


def read_json(path: Path) -> dict:
    """The JSON object in a file.

    Raises:
        SwiftliteError: the file cannot be read, or holds no JSON object.
    """
    try:
        return parse_json(path, path.read_bytes())
    except OSError as error:
        raise SwiftliteError(f'{path} cannot be read: {error.strerror}') from error


def parse_json(path: Path, content: bytes) -> dict:
    """The JSON object that a file holds; SwiftliteError if it is none."""
    try:
        value = json.loads(content.decode('utf-8'))
    except ValueError as error:
        raise SwiftliteError(f'{path} is not valid JSON: {error}') from error
    if not isinstance(value, dict):
        raise SwiftliteError(f'{path} holds {type(value).__name__} where a JSON object is expected')
    return value


def raw_config(path: str | Path) -> dict:
    """`config.json` of a checkpoint folder as it stands.

    Raises:
        SwiftliteError: no such folder, or no readable config.json in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise SwiftliteError(f'{folder} is not a folder; a checkpoint folder with config.json is needed')
    if not (folder / 'config.json').is_file():
        if (folder / 'adapter_config.json').is_file():
            raise SwiftliteError(f'{folder} holds a LoRA adapter without its base model; give the base model here')
        raise SwiftliteError(f'{folder} is not a model checkpoint: it has no config.json')
    return read_json(folder / 'config.json')


def positions(config: dict) -> int | None:
    """Positions that a native config was trained for, stretched as its rope_scaling says; None where it is silent."""
    most = config.get('max_position_embeddings')
    scaling = config.get('rope_scaling') or {}
    factor = scaling.get('factor')
    if (
        most and factor and scaling.get('rope_type') in ('linear', 'dynamic', 'yarn')
    ):  # others name the stretched number
        most = max(most, int((scaling.get('original_max_position_embeddings') or most) * factor))
    return most


def generation_config(path: str | Path) -> dict:
    """`generation_config.json` of a checkpoint folder, {} if there is none."""
    file = Path(path) / 'generation_config.json'
    return read_json(file) if file.is_file() else {}


def sampling_defaults(path: str) -> dict[str, Any]:
    """Sampling values of generation_config.json; with do_sample false, temperature 0 and nothing else."""
    config = generation_config(path)
    if config.get('do_sample') is False:
        return {'temperature': 0.0}
    found = {name: config[name] for name in SAMPLING_FIELDS if config.get(name) is not None}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SwiftliteError(f'generation_config.json of {path} gives {name} as {value!r}; a number is needed')
    return found


def read_config(path: str | Path) -> dict:
    """The native config of a checkpoint folder.

    Upstream layouts (Qwen v1) come out as the architecture they are mapped to, with `source_architecture` naming the
    original. Always present: architectures, model_type, hidden_size, num_attention_heads, num_key_value_heads,
    head_dim, rope_theta, rope_scaling (None or a dict with `rope_type`), dtype ('bfloat16', ... or None),
    tie_word_embeddings, and eos_token_id: the list of the ids in config.json and generation_config.json.
    Spellings of transformers 4 (torch_dtype, rope_theta, rope_scaling) and 5 (dtype, rope_parameters) are both read.

    Raises:
        SwiftliteError: the folder holds no readable config, the config lacks a dimension, or the weights are quantized.
    """
    raw = raw_config(path)
    if quantized := raw.get('quantization_config') or raw.get('compression_config'):
        kind = quantized.get('quant_method') if isinstance(quantized, dict) else None
        raise SwiftliteError(
            f'{path} has quantized weights ({kind or "of unknown kind"}), and this version runs bf16, fp16 and fp32 '
            'weights only: use the unquantized model'
        )
    mapping = mapping_of(raw)
    config = normalise(_map(raw, mapping, path) if mapping else raw, path)
    config['eos_token_id'] = _ids(config.get('eos_token_id'), generation_config(path).get('eos_token_id'))
    return config


def normalise(config: dict, path: str | Path = '') -> dict:
    """One spelling for keys that transformers 4 and 5 write differently; optional dimensions filled in."""
    config = dict(config)
    for key in ('hidden_size', 'num_attention_heads', 'num_hidden_layers', 'vocab_size'):
        if not isinstance(config.get(key), int) or config[key] <= 0:
            raise SwiftliteError(
                f'config.json of {path} gives {key} as {config.get(key)!r}; a positive integer is needed'
            )
    dtype = config.pop('torch_dtype', None)
    config['dtype'] = str(config.get('dtype') or dtype or '').removeprefix('torch.') or None
    rope = dict(config.pop('rope_parameters', None) or {})
    if rope and not any(isinstance(value, dict) for value in rope.values()):
        config['rope_theta'] = rope.pop('rope_theta', config.get('rope_theta'))
        config['rope_scaling'] = rope
    elif rope:  # one dict a layer type
        config['rope_parameters'] = rope
    config['rope_theta'] = config.get('rope_theta') or 10000.0
    config['rope_scaling'] = _scaling(config.get('rope_scaling'))
    config['num_key_value_heads'] = config.get('num_key_value_heads') or config['num_attention_heads']
    config['head_dim'] = config.get('head_dim') or config['hidden_size'] // config['num_attention_heads']
    config['tie_word_embeddings'] = bool(config.get('tie_word_embeddings', False))
    config['eos_token_id'] = _ids(config.get('eos_token_id'))
    return config


def _map(raw: dict, mapping: Mapping, path: str | Path) -> dict:
    config: dict = {'architectures': [mapping.native], 'model_type': mapping.native_type}
    for key in mapping.keys:
        value: Any = next((raw[source] for source in key.sources if raw.get(source) is not None), key.default)
        if value is None and key.native != 'head_dim':
            raise SwiftliteError(f'config.json of {path} has none of the keys {", ".join(key.sources)}')
        if value is not None:
            config[key.native] = value // key.divide if key.divide > 1 else value
    config.update(mapping.constants)
    config.update(
        {key: raw[key] for key in (*mapping.keep, 'torch_dtype', 'dtype', 'quantization_config') if key in raw}
    )
    for flag in ('bf16', 'fp16'):  # how the first uploads say their dtype
        if raw.get(flag) and 'torch_dtype' not in config:
            config['torch_dtype'] = {'bf16': 'bfloat16', 'fp16': 'float16'}[flag]
    config['source_architecture'] = mapping.architecture
    return config


def _scaling(scaling: dict | None) -> dict | None:
    if not scaling:
        return None
    scaling = dict(scaling)
    kind = scaling.pop('type', None)
    scaling['rope_type'] = scaling.get('rope_type') or kind or 'default'
    return None if scaling['rope_type'] == 'default' and len(scaling) == 1 else scaling


def _ids(*values: object) -> list[int]:
    found: list[int] = []
    for value in values:
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, int) and token not in found:
                found.append(token)
    return found
