"""From arguments to what is measured: the model's folder, its requests, its adapters."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..args.bench import BenchArgs
from ..args.bench_requests import RequestArgs
from ..engine.config import EngineConfig, ModelConfig, resolve_model
from ..errors import UsageError
from .presets import write_preset
from .random_adapters import write_adapters
from .workload import Request, build


@dataclass
class Setting:
    """A model to measure. `options` are EngineConfig's, without the model."""

    name: str
    model: str  # model type, folder or hub id
    config: ModelConfig
    options: dict[str, Any]
    folder: Path  # for what is written
    num_adapters: int
    lora_rank: int
    drawn_on: str  # device that draws the adapters' numbers

    @cached_property
    def adapters(self) -> list[str]:
        """Folders of the random adapters, written when they are first asked for."""
        return write_adapters(self.config.decoder, self.folder, self.num_adapters, self.lora_rank, self.drawn_on)

    @property
    def dtype(self) -> str:
        return str(self.config.dtype).removeprefix('torch.')


@contextlib.contextmanager
def setting(args: RequestArgs, tokenizer: bool) -> Iterator[Setting]:
    """The model that the arguments name; what had to be written for it is gone afterwards.

    tokenizer: whether texts are read or made, so that a preset needs one.
    """
    with tempfile.TemporaryDirectory(prefix='swiftlite-bench-') as folder:
        if args.config_preset is not None:
            model = str(write_preset(args.config_preset, Path(folder), tokenizer))
            name, revision = args.config_preset, None
        else:
            source = args.source()
            model, name, revision = source.model_id_or_path, source.name, source.revision
        options = args.engine_options() | {'dtype': args.dtype, 'seed': args.seed, 'revision': revision}
        options['enable_lora'] = args.uses_lora
        config = resolve_model(EngineConfig(model, **options))
        # where a server is started, the GPU is left to it
        drawn_on = 'cpu' if args.serves else config.device.partition(':')[0]
        yield Setting(name, model, config, options, Path(folder), *args.random_adapters(), drawn_on)


def workloads(args: BenchArgs, config: ModelConfig) -> dict[str, list[Request]]:
    """Name → requests of each workload; UsageError for one with requests that are too long for the model."""
    found = {name: build(args, name, config.vocab_size) for name in dict.fromkeys(args.workload)}
    for name, requests in found.items():
        check_lengths(args, name, requests, config)
    return found


def check_lengths(args: RequestArgs, name: str, requests: list[Request], config: ModelConfig) -> None:
    """UsageError where a request of the workload is too long for the model."""
    longest = max(requests, key=lambda r: len(r.prompt) + r.output_len)
    if len(longest.prompt) + longest.output_len > config.max_model_len:
        what = (
            f'--max_input_len {args.max_input_len} and --max_output_len {args.max_output_len} allow'
            if name.startswith('mixed')
            else f'--workload {name} has'
        )
        raise UsageError(
            f'{what} a request of {len(longest.prompt)} + {longest.output_len} tokens, '
            f"more than the model's {config.max_model_len} tokens"
        )
