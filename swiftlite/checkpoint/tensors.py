"""Weights of a checkpoint folder, streamed file by file under native names."""

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open

from swiftlite.checkpoint.config import raw_config, read_json
from swiftlite.checkpoint.flat_file import read_flat
from swiftlite.checkpoint.mappings import Mapping, mapping_of
from swiftlite.errors import SwiftliteError

_BUFFERS = ('rotary_emb.inv_freq', '.attn.masked_bias')  # recomputed, never read


def weight_files(path: str | Path) -> list[Path]:
    """The weight files of a folder in the order of their names: safetensors, else pytorch_model*.bin.

    Raises:
        SwiftliteError: there is none, or the index names a file that is missing.
    """
    folder = Path(path)
    for stem, suffix in (('model', 'safetensors'), ('pytorch_model', 'bin')):
        index = folder / f'{stem}.{suffix}.index.json'
        if index.is_file():
            names = sorted(set(read_json(index).get('weight_map', {}).values()))
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise SwiftliteError(
                    f'{folder} is incomplete: {index.name} names {", ".join(missing)}, which is missing'
                )
            return [folder / name for name in names]
        files = sorted(folder.glob(f'{stem}*.{suffix}'))
        if files:
            return files
    raise SwiftliteError(f'{folder} has no weights: neither model*.safetensors nor pytorch_model*.bin')


def iter_file(file: Path, in_memory: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, CPU tensor) of one weight file in its own names and dtypes; tensors are memory-mapped where possible.

    in_memory: read the file, do not map it. One that is cut short or whose disk goes away while it is mapped kills the
    process (SIGBUS).

    Raises:
        SwiftliteError: the file is truncated or no weight file.
    """
    if in_memory and file.suffix == '.safetensors':
        yield from read_flat(file, lambda size: torch.empty(size, dtype=torch.uint8)).tensors()
        return
    try:
        if file.suffix == '.safetensors':
            with safe_open(str(file), framework='pt') as reader:
                for name in reader.keys():  # noqa: SIM118 (not a dict)
                    yield name, reader.get_tensor(name)
        else:
            tensors = torch.load(file, map_location='cpu', weights_only=True, mmap=not in_memory)
            if not isinstance(tensors, dict):
                raise ValueError('it does not hold tensors by their names')
            yield from tensors.items()
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, UnpicklingError) as error:
        raise SwiftliteError(f'{file} is damaged or not a weight file: {str(error).splitlines()[0]}') from error


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is infinite or not a number: a sum tells, unless it overflows."""
    if torch.isfinite(tensor.sum(dtype=torch.float32)):
        return True
    return bool(torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor).all())  # not made for fp8


def iter_tensors(path: str | Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(native name, CPU tensor in the dtype on disk) of every weight, file by file; one tensor is in memory at a time.

    Fused upstream tensors are split into views. Buffers that are recomputed are left out.

    Raises:
        SwiftliteError: files are missing or damaged, or a name is unknown to the layout's mapping.
    """
    mapping = mapping_of(raw_config(path))
    for file in weight_files(path):
        for name, tensor in iter_file(file):
            yield from native_tensors(name, tensor, mapping, file)


def native_tensors(
    name: str, tensor: torch.Tensor, mapping: Mapping | None, file: Path
) -> Iterator[tuple[str, torch.Tensor]]:
    """The native (name, tensor) pairs one stored tensor holds."""
    if mapping is None:
        if not name.endswith(_BUFFERS):
            yield name, tensor
        return
    targets = mapping.to_native(name)
    if targets is None:
        raise SwiftliteError(f'{file} holds {name}, which a {mapping.architecture} checkpoint does not have')
    if targets:
        if tensor.shape[0] % len(targets):
            raise SwiftliteError(f'{name} in {file} has {tensor.shape[0]} rows, which do not divide by {len(targets)}')
        yield from zip(targets, tensor.chunk(len(targets)) if len(targets) > 1 else (tensor,), strict=True)
