"""A safetensors file in one read gives what the library gives, and a damaged one is one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from swiftlite.checkpoint.flat_file import largest, read_flat
from swiftlite.checkpoint.tensors import all_finite
from swiftlite.errors import SwiftliteError


def room(size):
    return torch.empty(size, dtype=torch.uint8)


def test_the_tensors_are_the_librarys(tmp_path):
    file = tmp_path / 'a.safetensors'
    tensors = {
        'a': torch.randn(3, 5).bfloat16(),
        'b': torch.randn(7),
        'c': torch.randint(0, 9, (2, 2, 2)),
        'd': torch.tensor(1.5, dtype=torch.float16),
        'e': torch.zeros(0, 4),
        'f': torch.tensor([True, False, True]),
        'g': torch.randn(3).double(),
    }
    save_file(tensors, file, metadata={'format': 'pt'})
    found = dict(read_flat(file, room).tensors())
    expected = load_file(file)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in expected.items())


def test_a_tensor_between_two_numbers_is_read(tmp_path):
    header = {
        'a': {'dtype': 'U8', 'shape': [1], 'data_offsets': [0, 1]},
        'b': {'dtype': 'F32', 'shape': [1], 'data_offsets': [1, 5]},
    }
    assert dict(read_flat(write(tmp_path, header, b'\7' + torch.ones(1).numpy().tobytes()), room).tensors()) == {
        'a': torch.tensor([7], dtype=torch.uint8),
        'b': torch.ones(1),
    }


def write(folder, header, data):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / 'x').write_bytes(len(content).to_bytes(8, 'little') + content + data)
    return folder / 'x'


@pytest.mark.parametrize(
    ('header', 'data'),
    [
        (b'{"a": ', b'1234'),
        (b'[]', b''),
        ({'a': 3}, b''),
        ({'a': {'dtype': 'F99', 'shape': [1], 'data_offsets': [0, 4]}}, b'1234'),
        ({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}, b'123'),
        ({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}, b'12345'),
        ({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 4]}}, b'1234'),
        ({'a': {'dtype': 'F32', 'shape': [-1, -1], 'data_offsets': [0, 4]}}, b'1234'),
        ({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}, b'12345678'),
        ({'a': {'dtype': 'F32', 'shape': ['1'], 'data_offsets': [0, 4]}}, b'1234'),
        ({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0]}}, b'1234'),
    ],
)
def test_a_header_that_lies_is_one_sentence(tmp_path, header, data):
    with pytest.raises(SwiftliteError, match='is damaged or not a weight file: ') as error:
        dict(read_flat(write(tmp_path, header, data), room).tensors())
    assert '\n' not in str(error.value)


def test_files_without_a_header(tmp_path):
    for content in (b'', b'123', (1 << 62).to_bytes(8, 'little'), (0).to_bytes(8, 'little')):
        (tmp_path / 'x').write_bytes(content)
        with pytest.raises(SwiftliteError, match='is damaged'):
            read_flat(tmp_path / 'x', room)
    with pytest.raises(SwiftliteError, match='is damaged'):
        read_flat(tmp_path, room)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_magnitude(dtype):
    for values in ([0.0], [-0.0, 0.0], [1.5, -2.5, 2.0], [-1.0, -3.0], [4.0, 1.0], [1e-5, -1e-6]):
        numbers = torch.tensor(values, dtype=dtype)
        assert largest(numbers) == numbers.abs().max().item()
        for bad in ('nan', '-nan', 'inf', '-inf'):
            with_bad = torch.cat([numbers, torch.tensor([float(bad)], dtype=dtype), numbers])
            assert not torch.isfinite(torch.tensor(largest(with_bad)))
    assert largest(torch.empty(0, dtype=dtype)) == 0


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize('dtype', DTYPES)
def test_what_is_no_number_is_found_in_every_dtype(dtype):
    assert all_finite(torch.tensor([1.5, -2.0]).to(dtype)) and largest(torch.tensor([1.5, -2.0]).to(dtype)) == 2
    for place in range(3):
        numbers = torch.tensor([1.5, -2.0, 0.0])
        numbers[place] = float('nan')
        assert not all_finite(numbers.to(dtype))
        assert not torch.isfinite(torch.tensor(largest(numbers.to(dtype))))
