"""Many adapters in the place of few files, and which of them a request uses."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..args.bench_adapters import AdapterBenchArgs
from ..engine.request import LoRARequest
from ..errors import UsageError
from ..models.config import DecoderConfig
from .random_adapters import write_adapters
from .setting import Setting

REAL = 8  # adapters of each rank that are written; others are links to them


@contextlib.contextmanager
def adapter_folders(args: AdapterBenchArgs, what: Setting, count: int) -> Iterator[list[LoRARequest]]:
    """`count` adapters, the i-th of rank ranks[i mod n]; their files are gone afterwards."""
    ranks = list(args.lora_rank)
    each = min(REAL, -(-count // len(ranks)))
    where = str(Path(args.adapter_dir).expanduser()) if args.adapter_dir else None
    with tempfile.TemporaryDirectory(prefix='swiftlite-adapters-', dir=where) as name:
        folder = Path(name)
        size = each * sum(adapter_bytes(what.config.decoder, rank) for rank in ranks)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise UsageError(
                f'the files of the adapters take {size / 2**30:.1f} GiB, and {folder.parent} has {free / 2**30:.1f} '
                'left: give --adapter_dir a folder with more'
            )
        print(f'writing {each} adapters of rank {", ".join(map(str, ranks))}, {size / 2**30:.2f} GiB', flush=True)
        real: list[list[str]] = []
        for index, rank in enumerate(ranks):
            (folder / f'{index}').mkdir()
            real.append(write_adapters(what.config.decoder, folder / f'{index}', each, rank, what.drawn_on))
        yield [_link(folder, real, index) for index in range(count)]


def adapter_bytes(model: DecoderConfig, rank: int) -> int:
    """Of an adapter's file: bf16, over all linear layers."""
    return 2 * rank * model.num_layers * sum(n_in + n_out for n_in, n_out in model.linear_sizes.values())


def pick(choice: str, adapters: int, requests: int, seed: int) -> list[int]:
    """The adapter of each request: the next one each time, or drawn with Zipf's weights (exponent 1)."""
    if choice == 'round_robin':
        return [index % adapters for index in range(requests)]
    return random.Random(seed).choices(range(adapters), [1 / (k + 1) for k in range(adapters)], k=requests)


def _link(folder: Path, real: Sequence[Sequence[str]], index: int) -> LoRARequest:
    of_rank = real[index % len(real)]
    path = folder / f'link-{index}'
    path.symlink_to(of_rank[index // len(real) % len(of_rank)], target_is_directory=True)
    return LoRARequest(f'adapter-{index}', index + 1, str(path))
