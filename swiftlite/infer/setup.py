"""From the arguments of infer and deploy to what runs: files, engine options, template, adapters, sampling defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swiftlite.checkpoint.adapter import adapter_config
from swiftlite.checkpoint.config import sampling_defaults
from swiftlite.engine.config import EngineConfig
from swiftlite.errors import UsageError
from swiftlite.hub import local_path
from swiftlite.registry.resolve import ModelSource, complete
from swiftlite.template import Template, get_template

if TYPE_CHECKING:
    from swiftlite.args.groups import RunArgs, SamplingArgs

DEFAULT_ADAPTER = 'default-lora'


@dataclass(frozen=True)
class Setup:
    """What to run. `adapters`: name → folder, --ckpt_dir's LoRA first; `defaults`: the checkpoint's sampling values."""

    source: ModelSource
    config: EngineConfig
    adapters: dict[str, str]
    template_type: str | None
    template_options: dict[str, Any]
    defaults: dict[str, Any]

    def template(self, tokenizer: Any) -> Template:
        """The template; SwiftliteError where none is named and none fits the tokenizer's own."""
        return get_template(self.template_type, tokenizer, **self.template_options)


def prepare(args: RunArgs) -> Setup:
    """Find the files (downloading them where need be) and settle what follows from them; reads no weights.

    Raises UsageError and SwiftliteError: a model or adapter that is not there, or not an adapter.
    """
    source = args.source()
    adapters = {DEFAULT_ADAPTER: source.adapter} if source.adapter else {}
    if adapters.keys() & args.adapters().keys():
        raise UsageError(f"--lora_modules names '{DEFAULT_ADAPTER}', which is the LoRA in --ckpt_dir")
    adapters |= args.adapters()
    ranks = [_rank(path) for path in adapters.values()]
    path = local_path(source.model_id_or_path, source.revision)
    source = complete(source, path)
    config = EngineConfig(
        model=path,
        tokenizer=args.tokenizer,
        dtype=args.dtype,
        max_model_len=args.max_model_len,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        block_size=args.block_size,
        kv_cache_dtype=args.kv_cache_dtype,
        num_gpu_blocks_override=args.num_gpu_blocks_override,
        gpu_memory_utilization=args.gpu_memory_utilization,
        enable_prefix_caching=args.enable_prefix_caching,
        enforce_eager=args.enforce_eager,
        tensor_parallel_size=args.tensor_parallel_size,
        enable_lora=bool(adapters) or getattr(args, 'enable_lora', False),
        max_loras=args.max_loras,
        max_lora_rank=max([args.max_lora_rank, *ranks]),
        max_cpu_loras=args.max_cpu_loras,
        max_logprobs=args.max_logprobs,
        load_format=args.load_format,
        seed=args.seed,
    )
    return Setup(
        source=source,
        config=config,
        adapters={name: os.path.abspath(folder) for name, folder in adapters.items()},
        template_type=args.template_type or source.template,
        template_options=args.template_options(),
        defaults=sampling_defaults(path),
    )


def _rank(path: str) -> int:
    """The highest rank of an adapter, so that room is kept for it from the start."""
    settings = adapter_config(path)
    return max([int(settings.get('r', 8)), *map(int, (settings.get('rank_pattern') or {}).values())])


def sampling(args: SamplingArgs, defaults: dict[str, Any]) -> dict[str, Any]:
    """SamplingParams fields: what was typed, else the checkpoint's; --do_sample false takes the likeliest token."""
    typed = {
        'temperature': args.temperature,
        'top_k': args.top_k,
        'top_p': args.top_p,
        'repetition_penalty': args.repetition_penalty,
    }
    values = defaults | {name: value for name, value in typed.items() if value is not None}
    if args.do_sample is False:
        values['temperature'] = 0.0
    elif args.do_sample and args.temperature is None and not values.get('temperature', 1.0):
        values['temperature'] = 1.0  # the checkpoint is greedy by default
    return values | {'stop': list(args.stop_words)}
