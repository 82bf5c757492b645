"""The engine's configuration and what follows from the checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from swiftlite_kernels.cache.dtypes import FP8, fp8_dtype

from ..checkpoint.config import generation_config, read_config
from ..errors import SwiftliteError, nearest
from ..hub import local_path
from ..models.config import DecoderConfig, decoder_config
from ..registry.resolve import get_family
from .vllm_options import without_needless

DTYPES = {
    'bfloat16': torch.bfloat16,
    'bf16': torch.bfloat16,
    'float16': torch.float16,
    'half': torch.float16,
    'fp16': torch.float16,
    'float32': torch.float32,
    'float': torch.float32,
    'fp32': torch.float32,
}
CACHE_DTYPES = ('auto', *FP8)


@dataclass(frozen=True)
class EngineConfig:
    """Everything that starts an engine; vLLM's names. Memory fields are shares of the device, lengths are tokens."""

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    dtype: str = 'auto'
    max_model_len: int | None = None
    max_num_seqs: int | None = None  # None: 1024 on a GPU with 70 GiB or more, else 256
    max_num_batched_tokens: int | None = None
    block_size: int = 16
    kv_cache_dtype: str = 'auto'  # auto: the weights' dtype; fp8 (= fp8_e4m3), fp8_e5m2: half the bytes of bf16
    num_gpu_blocks_override: int | None = None
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    enable_lora: bool = False
    max_loras: int = 8
    max_lora_rank: int = 64
    max_cpu_loras: int | None = None  # kept in host memory; None: what fits a quarter of what is free at the start
    load_format: str = 'auto'
    skip_tokenizer_init: bool = False
    seed: int = 0
    device: str = 'auto'
    max_logprobs: int = 20  # most log probabilities a token that a request may ask for; -1: the whole vocabulary
    lookahead: int | None = None  # steps submitted before a result is read; None: 1 on a GPU, 0 on a CPU

    def __post_init__(self) -> None:
        for name, low in (
            ('block_size', 1),
            ('tensor_parallel_size', 1),
            ('max_loras', 1),
            ('max_lora_rank', 1),
        ):
            _at_least(name, getattr(self, name), low)
        for name in ('max_model_len', 'max_num_seqs', 'max_num_batched_tokens', 'num_gpu_blocks_override'):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if self.max_cpu_loras is not None:
            _at_least('max_cpu_loras', self.max_cpu_loras, 1)
            if self.max_cpu_loras < self.max_loras:
                raise SwiftliteError(
                    f'max_cpu_loras {self.max_cpu_loras} is less than max_loras {self.max_loras}: every adapter of a '
                    'batch comes from host memory; give max_cpu_loras at least that.'
                )
        _at_least('max_logprobs', self.max_logprobs, -1)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise SwiftliteError(
                f'gpu_memory_utilization must be above 0 and at most 1, got {self.gpu_memory_utilization}.'
            )
        if self.dtype != 'auto' and self.dtype not in DTYPES:
            raise SwiftliteError(
                f"dtype '{self.dtype}' is not known{nearest(self.dtype, DTYPES)}; valid: auto, {', '.join(DTYPES)}."
            )
        if self.kv_cache_dtype not in CACHE_DTYPES:
            raise SwiftliteError(
                f"kv_cache_dtype '{self.kv_cache_dtype}' is not known{nearest(self.kv_cache_dtype, CACHE_DTYPES)}; "
                f'valid: {", ".join(CACHE_DTYPES)}.'
            )
        if self.load_format not in ('auto', 'safetensors', 'pt', 'dummy'):
            raise SwiftliteError(f"load_format '{self.load_format}' is not known; valid: auto, safetensors, pt, dummy.")

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> EngineConfig:
        """As the constructor, with the nearest match for an unknown name; vLLM's needless options get a notice."""
        names = [f.name for f in fields(cls)]
        kwargs = without_needless(kwargs)
        for key in kwargs:
            if key not in names:
                raise SwiftliteError(f"the engine has no option '{key}'{nearest(key, names)}.")
        return cls(**kwargs)


@dataclass(frozen=True)
class ModelConfig:
    """The resolved model: a local folder, the network, and limits in tokens."""

    path: str
    tokenizer: str
    decoder: DecoderConfig
    dtype: torch.dtype
    cache_dtype: torch.dtype
    device: str
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    eos_token_ids: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        return self.decoder.vocab_size


def resolve_device(device: str, rank: int = 0) -> str:
    """'auto' → 'cuda:<rank>' where there is a GPU, else 'cpu'."""
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return f'cuda:{rank}' if device == 'cuda' else device


def resolve_model(config: EngineConfig) -> ModelConfig:
    """Read the checkpoint's config and settle dtype, device and lengths; SwiftliteError says what does not fit."""
    path = local_path(config.model, config.revision)
    raw = read_config(path)
    architecture = (raw.get('architectures') or ['?'])[0]
    decoder = decoder_config(raw, get_family(architecture))
    device = resolve_device(config.device)
    limit = decoder.max_position
    length = config.max_model_len or limit
    if length > limit:
        raise SwiftliteError(
            f'max_model_len {length} is beyond what {path} was made for ({limit} tokens, max_position_embeddings); '
            f'give at most {limit}.'
        )
    gpu = device.startswith('cuda')
    batched = config.max_num_batched_tokens or (8192 if gpu else 2048)
    generation = generation_config(path)
    eos = generation.get('eos_token_id', list(decoder.eos_token_ids))
    eos = tuple(eos) if isinstance(eos, (list, tuple)) else (eos,) if eos is not None else ()
    dtype = _dtype(config.dtype, decoder.dtype, gpu)
    return ModelConfig(
        path=path,
        tokenizer=local_path(config.tokenizer) if config.tokenizer else path,
        decoder=decoder,
        dtype=dtype,
        cache_dtype=_cache_dtype(config.kv_cache_dtype, device) or dtype,
        device=device,
        max_model_len=length,
        max_num_batched_tokens=max(batched, 1),
        max_num_seqs=config.max_num_seqs or _default_seqs(device),
        eos_token_ids=tuple(dict.fromkeys(eos + decoder.eos_token_ids)),
    )


def _default_seqs(device: str) -> int:
    large = device.startswith('cuda') and torch.cuda.get_device_properties(device).total_memory >= 70 * 2**30
    return 1024 if large else 256


def _dtype(asked: str, stored: str, gpu: bool) -> torch.dtype:
    """auto: the checkpoint's own on a GPU; fp32 on a CPU, where bf16 is slower and less exact."""
    if asked != 'auto':
        return DTYPES[asked]
    if not gpu:
        return torch.float32
    dtype = DTYPES.get(stored.removeprefix('torch.'), torch.bfloat16)
    return torch.bfloat16 if dtype == torch.float32 else dtype


def _cache_dtype(asked: str, device: str) -> torch.dtype | None:
    """The dtype of an fp8 cache, None for auto."""
    dtype = fp8_dtype(asked)
    if dtype == torch.float8_e4m3fn and device.startswith('cuda') and torch.cuda.get_device_capability(device) < (8, 9):
        raise SwiftliteError(f"kv_cache_dtype '{asked}' needs a GPU of compute capability 8.9; use fp8_e5m2 or auto.")
    return dtype


def _at_least(name: str, value: Any, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SwiftliteError(f'{name} must be an integer of at least {low}, got {value!r}.')


def cpu_cache_bytes() -> int:
    """KV-cache memory on a CPU: SWIFTLITE_CPU_KVCACHE_GIB, else a quarter of what is available, at most 4 GiB."""
    given = os.environ.get('SWIFTLITE_CPU_KVCACHE_GIB')
    if given:
        try:
            return int(float(given) * 2**30)
        except ValueError:
            raise SwiftliteError(f"SWIFTLITE_CPU_KVCACHE_GIB must be a number of GiB, got '{given}'.") from None
    return min(_free_bytes() // 4, 4 * 2**30)


def host_adapter_bytes(config: EngineConfig) -> int:
    """Memory of a rank for adapters, where max_cpu_loras does not limit their number: a quarter of what is free."""
    return _free_bytes() // 4 // config.tensor_parallel_size


def _free_bytes() -> int:
    """What this machine and this container have left, files that are only cached counted as free."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        free = int(next(line.split()[1] for line in lines if line.startswith('MemAvailable'))) * 1024
    except (OSError, StopIteration):
        return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    group = Path('/sys/fs/cgroup')
    try:
        limit = (group / 'memory.max').read_text().strip()
        if limit != 'max':
            stat = dict(line.split() for line in (group / 'memory.stat').read_text().splitlines())
            used = int((group / 'memory.current').read_text()) - int(stat['inactive_file'])
            free = min(free, max(int(limit) - used, 0))
    except (OSError, ValueError, KeyError):
        pass  # no limit that can be read
    return free
