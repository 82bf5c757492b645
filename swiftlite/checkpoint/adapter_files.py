"""The files of a PEFT adapter in memory: adapters of one shape are recognised before anything is made of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from swiftlite.checkpoint.adapter import Adapter, assembled, check_folder, supported, weights_file
from swiftlite.checkpoint.config import parse_json
from swiftlite.checkpoint.flat_file import FlatFile, read_flat
from swiftlite.checkpoint.tensors import iter_file
from swiftlite.errors import SwiftliteError


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter that is served. weights: None where they are no safetensors."""

    file: Path
    config: bytes
    weights: FlatFile | None

    @property
    def key(self) -> tuple[bytes, bytes, int] | None:
        """The same for adapters of the same settings, names, dtypes and shapes in the same places."""
        return None if self.weights is None else (self.config, self.weights.header, len(self.weights.data))

    def adapter(self, check_values: bool) -> Adapter:
        """Views of the weights; SwiftliteError as for `read_adapter`, for values only with `check_values`."""
        folder = self.file.parent
        settings = supported(folder, parse_json(folder / 'adapter_config.json', self.config))
        return assembled(self.file, settings, self._tensors(), check_values)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter_file(self.file, in_memory=True) if self.weights is None else self.weights.tensors()


def read_files(path: str | Path, room: Callable[[int], torch.Tensor]) -> AdapterFiles:
    """Read an adapter's folder, each file at once; room(n): memory for n bytes, uint8."""
    folder = Path(path)
    check_folder(folder)
    try:
        config = (folder / 'adapter_config.json').read_bytes()
    except OSError as error:
        raise SwiftliteError(f'{folder} cannot be read: {error.strerror}') from error
    file = weights_file(folder)
    return AdapterFiles(file, config, read_flat(file, room) if file.suffix == '.safetensors' else None)
