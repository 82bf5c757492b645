"""Upstream layouts converted once into a cached native checkpoint that transformers reads."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from swiftlite.checkpoint.config import generation_config, raw_config, read_config
from swiftlite.checkpoint.mappings import mapping_of
from swiftlite.checkpoint.tensors import iter_tensors, weight_files
from swiftlite.checkpoint.tokenizer import load_tokenizer
from swiftlite.errors import SwiftliteError

SHARD_BYTES = 4 << 30


def cache_folder() -> Path:
    """$SWIFTLITE_CACHE, else swiftlite under $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get('SWIFTLITE_CACHE'):
        return Path(folder)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'swiftlite'


def native_checkpoint(path: str | Path) -> str:
    """The folder itself if its layout is native, else a cached conversion with weights, config and tokenizer.

    The cache is keyed by the content of config, tokenizer and (sampled) weights and appears by one rename, so an
    interrupted conversion is never used and two processes may convert at once.
    """
    if mapping_of(raw_config(path)) is None:
        return str(path)
    target = cache_folder() / 'native' / f'{Path(path).resolve().name}-{_content_key(Path(path))}'
    if target.is_dir():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix='.converting-', dir=target.parent))
    try:
        write_native(path, work)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():  # not a race that another process won
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return str(target)


def write_native(path: str | Path, folder: Path) -> None:
    """Write the checkpoint at `path` into `folder` in its native layout: weights in their dtypes, config, tokenizer."""
    write_shards(iter_tensors(path), folder)
    write_config(path, folder)
    load_tokenizer(path).save_pretrained(str(folder))


def write_config(path: str | Path, folder: Path) -> None:
    """config.json (native keys, hub spelling) and generation_config.json of the checkpoint at `path`."""
    config = read_config(path)
    config['torch_dtype'] = config.pop('dtype')
    eos = config['eos_token_id']
    config['eos_token_id'] = (eos[0] if len(eos) == 1 else eos) if eos else None
    write_json(folder / 'config.json', {key: value for key, value in config.items() if value is not None})
    if generation := generation_config(path):
        write_json(folder / 'generation_config.json', generation)


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')


def save_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write a safetensors file with the permissions of any new file (safetensors alone makes it private)."""
    save_file(tensors, str(file), metadata={'format': 'pt'})
    share(file)


def share(file: Path) -> None:
    """Give a file the permissions that the umask grants."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def write_shards(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Stream tensors into model*.safetensors of at most `shard_bytes` (or one tensor) each, indexed if several."""
    names: list[tuple[Path, list[str]]] = []
    total = 0
    try:
        for number, shard in enumerate(_shards(tensors, shard_bytes), 1):
            file = folder / f'model-{number:05d}.safetensors'
            save_tensors(shard, file)
            total += sum(tensor.numel() * tensor.element_size() for tensor in shard.values())
            names.append((file, list(shard)))
    except (OSError, SafetensorError) as error:
        raise SwiftliteError(f'{folder} cannot be written: {getattr(error, "strerror", None) or error}') from error
    if len(names) == 1:
        names[0][0].rename(folder / 'model.safetensors')
        return
    index: dict = {'metadata': {'total_size': total}, 'weight_map': {}}
    for number, (file, keys) in enumerate(names, 1):
        final = folder / f'model-{number:05d}-of-{len(names):05d}.safetensors'
        file.rename(final)
        index['weight_map'].update(dict.fromkeys(keys, final.name))
    write_json(folder / 'model.safetensors.index.json', index)


def _shards(tensors: Iterable[tuple[str, torch.Tensor]], limit: int) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    storages: set[int] = set()
    for name, tensor in tensors:
        if shard and size + tensor.numel() * tensor.element_size() > limit:
            yield shard
            shard, size, storages = {}, 0, set()
        storage = tensor.untyped_storage().data_ptr()
        shard[name] = tensor.clone() if storage in storages else tensor.contiguous()  # safetensors takes no aliases
        storages.add(storage)
        size += tensor.numel() * tensor.element_size()
    if shard:
        yield shard


def _content_key(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted({*folder.glob('*.json'), *folder.glob('*.tiktoken'), *folder.glob('*.model')}):
        digest.update(file.name.encode() + file.read_bytes())
    for file in weight_files(folder):
        size = file.stat().st_size
        digest.update(f'{file.name} {size}'.encode())
        with file.open('rb') as stream:
            for start in [0, *(size * i // 256 for i in range(1, 256))]:
                stream.seek(start)
                digest.update(stream.read(4096))
    return digest.hexdigest()[:16]
