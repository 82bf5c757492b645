"""A safetensors file in one read: its header, and its tensors one behind the other."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from swiftlite.errors import SwiftliteError

DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'F8_E4M3': torch.float8_e4m3fn,
    'F8_E5M2': torch.float8_e5m2,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number


@dataclass(frozen=True)
class FlatFile:
    """Files with the same header hold tensors of the same names, dtypes and shapes in the same places."""

    file: Path
    header: bytes
    data: torch.Tensor  # uint8 [n], all tensors

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) in the order of the file; views of `data`.

        Raises:
            SwiftliteError: the header does not describe the file.
        """
        try:
            entries = json.loads(self.header)
            entries.pop('__metadata__', None)
            end = 0
            found: dict[str, torch.Tensor] = {}
            for name, entry in sorted(entries.items(), key=lambda item: item[1]['data_offsets']):
                (start, stop), dtype, shape = entry['data_offsets'], DTYPES[entry['dtype']], entry['shape']
                if start != end or stop - start != prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
                    raise ValueError(f'{name} is not where its header says')
                end = stop
                part = self.data[start:stop]
                found[name] = (part if start % dtype.itemsize == 0 else part.clone()).view(dtype).view(shape)
            if end != len(self.data):
                raise ValueError(f'it has {len(self.data)} bytes of tensors, its header says {end}')
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise _damaged(self.file, error) from error
        yield from found.items()


def read_flat(file: Path, room: Callable[[int], torch.Tensor]) -> FlatFile:
    """A file's content; room(n): memory for n bytes, uint8.

    A file that is mapped and then cut short, or whose disk goes away, would kill the process (SIGBUS); a read fails.

    Raises:
        SwiftliteError: it cannot be read, or is no safetensors file of this length.
    """
    try:
        with open(file, 'rb', buffering=0) as source:
            size = os.fstat(source.fileno()).st_size - 8
            length = int.from_bytes(source.read(8), 'little')
            if not 0 < length <= size:
                raise ValueError(f'its header would have {length} bytes')
            header = source.read(length)
            data = room(size - length)
            left = memoryview(data.numpy())
            while left:
                count = source.readinto(left)
                if not count:
                    raise ValueError('it is cut short')
                left = left[count:]
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    return FlatFile(file, header, data)


def largest(numbers: torch.Tensor) -> float:
    """The largest magnitude of floating-point numbers [n], inf or nan if one is; two passes over their bits."""
    if not numbers.numel():
        return 0.0
    size = numbers.dtype.itemsize
    bits = numbers.view(BITS[size]).numpy()
    top = max(int(bits.max()), int(bits.view(f'u{size}').max()) % (1 << 8 * size - 1))  # of those above and below 0
    return float(torch.tensor([top], dtype=BITS[size]).view(numbers.dtype))


def _damaged(file: Path, error: Exception) -> SwiftliteError:
    return SwiftliteError(f'{file} is damaged or not a weight file: {" ".join(str(error).split())}')
