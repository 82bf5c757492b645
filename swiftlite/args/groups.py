"""Fields that several commands share: which model, which data, how the engine runs, how replies are drawn."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from swiftlite.args.custom import register_dataset_info, register_file
from swiftlite.args.fields import Args, arg
from swiftlite.errors import UsageError
from swiftlite.registry.resolve import ModelSource, resolve_model, template_name
from swiftlite.registry.templates import JINJA

DTYPES = {
    'auto': 'auto',
    'bf16': 'bf16',
    'bfloat16': 'bf16',
    'fp16': 'fp16',
    'float16': 'fp16',
    'half': 'fp16',
    'fp32': 'fp32',
    'float32': 'fp32',
    'float': 'fp32',
}


@dataclass(frozen=True, kw_only=True)
class WeightsArgs(Args):
    """Which model."""

    model_type: str | None = arg(
        None, "name of a model, as listed by 'swiftlite models'; 'tiny-chat' needs no download", group='model'
    )
    model_id_or_path: str | None = arg(
        None,
        'folder or hub id of the weights; the type is found from its config. A model type is accepted too',
        group='model',
        aliases=('model', 'model_name_or_path'),
    )
    model_revision: str | None = arg(None, 'branch, tag or commit on the hub', group='model', aliases=('revision',))
    custom_register_path: str | None = arg(
        None, "YAML or JSON file with models, templates and data sets of one's own (docs/models.md)", group='model'
    )

    def check(self) -> None:
        super().check()
        if self.custom_register_path is not None:
            object.__setattr__(self, 'custom_register_path', register_file(self.custom_register_path))

    def source(self) -> ModelSource:
        """Which model these arguments name."""
        return resolve_model(
            self.model_type, self.model_id_or_path, getattr(self, 'ckpt_dir', None), self.model_revision
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointArgs(WeightsArgs):
    """Which model, or something ``sft`` wrote."""

    ckpt_dir: str | None = arg(
        None,
        'checkpoint folder of sft or export; everything else about the model is recovered from it',
        group='model',
        aliases=('adapters', 'adapter_name_or_path'),
    )
    load_args_from_ckpt_dir: bool = arg(
        True, 'recover the template, dtype and system prompt from the sft_args.json in --ckpt_dir', group='model'
    )


@dataclass(frozen=True, kw_only=True)
class PromptArgs(Args):
    """How the model's prompts are written."""

    template_type: str | None = arg(
        None,
        "prompt format, as listed by 'swiftlite models'",
        group='model',
        aliases=('template',),
        shown="the model's",
    )
    chat_template: str | None = arg(
        None,
        'prompt format as Jinja text, or a file of it, in place of --template_type',
        group='model',
        shown="the model's",
    )
    system: str | None = arg(
        None,
        "system prompt of conversations that bring none; '' for no system turn",
        group='model',
        shown="the template's",
    )
    enable_thinking: bool | None = arg(
        None,
        'whether a model that may think before it answers (Qwen3) does so',
        group='model',
        shown="the template's",
    )

    def check(self) -> None:
        super().check()
        object.__setattr__(self, 'template_type', template_name(self.template_type))
        if self.chat_template is not None:
            if self.template_type not in (None, JINJA):
                raise UsageError(f"--chat_template stands in place of --template_type '{self.template_type}': give one")
            object.__setattr__(self, 'chat_template', jinja_text(self.chat_template))

    def template_options(self) -> dict[str, Any]:
        """Keyword arguments of ``get_template``: Jinja text, the system prompt and thinking, where they were given."""
        options: dict[str, Any] = {} if self.system is None else {'default_system': self.system or None}
        if self.chat_template is not None:
            options['chat_template'] = self.chat_template
        return options if self.enable_thinking is None else {**options, 'enable_thinking': self.enable_thinking}


@dataclass(frozen=True, kw_only=True)
class NumberArgs(Args):
    """In which numbers the model computes."""

    dtype: str = arg(
        'auto',
        'number format of the weights: auto, bf16, fp16 or fp32',
        group='model',
        aliases=('torch_dtype',),
        choices=DTYPES,
    )


@dataclass(frozen=True, kw_only=True)
class DataArgs(Args):
    """Which rows."""

    dataset: list[str] = arg(
        [],
        "data sets by name or hub id (HF::id, MS::id) and files (jsonl, json, csv), each with '#N' for N random rows",
        group='data',
        aliases=('custom_train_dataset_path',),
        split=',',
    )
    val_dataset: list[str] = arg(
        [],
        'held-out data, in place of a part of --dataset',
        group='data',
        aliases=('custom_val_dataset_path',),
        split=',',
    )
    dataset_test_ratio: float = arg(
        0.01,
        'share of --dataset that is held out when there is no --val_dataset',
        group='data',
        aliases=('split_dataset_ratio', 'val_size'),
        low=0,
        high=0.99,
    )
    dataset_seed: int = arg(None, 'seed of the sampling and the split', group='data', shown='--seed')
    model_name: list[str] | None = arg(
        None, 'name the model gives itself with self-cognition: Chinese and English, or one for both', group='data'
    )
    model_author: list[str] | None = arg(None, 'who made it: Chinese and English, or one for both', group='data')
    custom_dataset_info: list[str] = arg(
        [], 'dataset_info.json of ms-swift or LLaMA-Factory, or its folder: names for --dataset', group='data'
    )
    self_cognition_sample: int = arg(0, 'the same as self-cognition#N on --dataset', group='data', low=0)
    train_dataset_sample: int = arg(-1, 'the same as #N behind the one --dataset; -1: all', group='data', low=-1)

    def check(self) -> None:
        super().check()
        found = [register_dataset_info(file) for file in self.custom_dataset_info]
        object.__setattr__(self, 'custom_dataset_info', found)
        dataset = list(self.dataset)
        if self.train_dataset_sample >= 0:
            if len(dataset) != 1:
                raise UsageError(
                    f'--train_dataset_sample draws from one data set, not from {len(dataset)}: '
                    'write the number behind each, my.jsonl#1000'
                )
            source, _, number = dataset[0].rpartition('#')
            several = bool(source) and number.isdigit()
            dataset = [f'{source if several else dataset[0]}#{self.train_dataset_sample}']
        if self.self_cognition_sample:
            dataset = [spec for spec in dataset if spec.partition('#')[0] != 'self-cognition']
            dataset.append(f'self-cognition#{self.self_cognition_sample}')
        # both are settled now, and must not count again in a copy
        for name, value in (('dataset', dataset), ('train_dataset_sample', -1), ('self_cognition_sample', 0)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class EngineArgs(Args):
    """How the engine runs; vLLM's names."""

    tensor_parallel_size: int = arg(
        1, 'devices that share the model', group='engine', aliases=('vllm_tensor_parallel_size', 'tp', '-tp'), low=1
    )
    gpu_memory_utilization: float = arg(
        0.9,
        "share of the GPU's memory to use",
        group='engine',
        aliases=('vllm_gpu_memory_utilization',),
        low=0.01,
        high=1,
    )
    max_model_len: int | None = arg(
        None,
        'longest prompt and reply together, in tokens',
        group='engine',
        aliases=('vllm_max_model_len',),
        low=1,
        shown="the model's",
    )
    max_num_seqs: int | None = arg(
        None,
        'requests in one batch',
        group='engine',
        aliases=('vllm_max_num_seqs',),
        low=1,
        shown='256; 1024 on a GPU with 70 GiB or more',
    )
    max_num_batched_tokens: int | None = arg(None, 'tokens in one step', group='engine', low=1)
    block_size: int = arg(16, 'tokens in a block of the KV cache', group='engine', low=1)
    kv_cache_dtype: str = arg(
        'auto',
        'dtype of the KV cache: auto is that of the weights, fp8 takes half the memory of bf16',
        group='engine',
        choices=('auto', 'fp8', 'fp8_e4m3', 'fp8_e5m2'),
    )
    num_gpu_blocks_override: int | None = arg(None, 'blocks of the KV cache', group='engine', low=1, shown='what fits')
    enable_prefix_caching: bool = arg(
        True, 'reuse what prompts have in common', group='engine', aliases=('vllm_enable_prefix_caching',)
    )
    enforce_eager: bool = arg(False, 'no CUDA graphs', group='engine', aliases=('vllm_enforce_eager',))
    max_logprobs: int = arg(
        20, 'most log probabilities a token that a request may ask for; -1: all', group='engine', low=-1
    )
    load_format: str = arg(
        'auto', 'auto, or dummy for random weights', group='engine', choices=('auto', 'safetensors', 'dummy')
    )
    max_loras: int = arg(8, 'adapters in one batch', group='adapters', low=1)
    max_cpu_loras: int | None = arg(
        None,
        'adapters kept in host memory behind those on the device; others are read from disk again when they are used',
        group='adapters',
        low=1,
        shown='what fits a quarter of the free memory',
    )
    max_lora_rank: int = arg(64, 'highest rank of an adapter', group='adapters', aliases=('vllm_max_lora_rank',), low=1)

    def engine_options(self) -> dict[str, Any]:
        """Keyword arguments of ``EngineConfig`` that these flags stand for."""
        return {f.name: getattr(self, f.name) for f in fields(EngineArgs)}


@dataclass(frozen=True, kw_only=True)
class AdapterArgs(Args):
    """Which adapters run beside the base model."""

    lora_modules: list[str] = arg(
        [],
        'adapters to serve beside the base model, each as name=path or as JSON {"name": …, "path": …}',
        group='adapters',
        aliases=('vllm_lora_modules',),
    )

    def check(self) -> None:
        super().check()
        names = [name for name, _, _ in map(_adapter, self.lora_modules)]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--lora_modules names '{name}' twice")

    def adapters(self) -> dict[str, str]:
        """Name → folder of each of ``--lora_modules``."""
        return {name: path for name, path, _ in map(_adapter, self.lora_modules)}

    def adapter_bases(self) -> dict[str, str]:
        """Name → ``base_model_name``, of those of ``--lora_modules`` that give it."""
        return {name: base for name, _, base in map(_adapter, self.lora_modules) if base}


def _adapter(module: str) -> tuple[str, str, str]:
    """(name, path, base model or '') of one of ``--lora_modules``; UsageError for what is neither form of one."""
    if not module.lstrip().startswith('{'):
        name, _, path = module.partition('=')
        if not (name and path):
            raise UsageError(f"--lora_modules takes name=path, not '{module}'")
        return name, path, ''
    try:
        fields = json.loads(module)
    except ValueError as error:
        raise UsageError(f"--lora_modules takes name=path or JSON, and '{module}' is not JSON: {error}") from None
    known = {'name', 'path', 'base_model_name'}
    if not {'name', 'path'} <= fields.keys() <= known or not all(isinstance(v, str) and v for v in fields.values()):
        raise UsageError(f'--lora_modules takes {{"name": …, "path": …}}, with "base_model_name" at most, not {module}')
    return fields['name'], fields['path'], fields.get('base_model_name', '')


@dataclass(frozen=True, kw_only=True)
class RunArgs(EngineArgs, AdapterArgs, NumberArgs, PromptArgs, CheckpointArgs):
    """A model or checkpoint that the engine runs, in the terminal or as a server."""

    tokenizer: str | None = arg(None, 'folder of the tokenizer', group='model', shown="the model's")
    merge_lora: bool = arg(
        False,
        'merge the LoRA in --ckpt_dir into <ckpt_dir>-merged first and run that',
        group='adapters',
        aliases=('merge_lora_and_save',),
    )
    seed: int = arg(42, 'of every random choice', group='engine')

    def check(self) -> None:
        super().check()
        if self.merge_lora and self.ckpt_dir is None:
            raise UsageError('--merge_lora needs --ckpt_dir, the folder of a LoRA checkpoint')


@dataclass(frozen=True, kw_only=True)
class SamplingArgs(Args):
    """How tokens are drawn; None leaves it to the checkpoint's generation_config.json."""

    do_sample: bool | None = arg(
        None, 'false: always the most likely token', group='generation', shown="the checkpoint's"
    )
    temperature: float | None = arg(
        None, 'spread of the choice; 0 takes the most likely token', group='generation', low=0, shown="the checkpoint's"
    )
    top_k: int | None = arg(
        None, 'choose among the k most likely; -1 or 0: all', group='generation', low=-1, shown="the checkpoint's"
    )
    top_p: float | None = arg(
        None, 'choose among the most likely that make up p', group='generation', low=0, high=1, shown="the checkpoint's"
    )
    repetition_penalty: float | None = arg(
        None, 'above 1: less of what was said', group='generation', low=0.01, shown="the checkpoint's"
    )
    stop_words: list[str] = arg([], 'texts that end a reply', group='generation')

    def check(self) -> None:
        super().check()
        if self.top_p == 0:
            raise UsageError('--top_p must be above 0 and at most 1, not 0: --temperature 0 takes the likeliest token')
        if '' in self.stop_words:
            raise UsageError('--stop_words takes texts that are not empty')


@dataclass(frozen=True, kw_only=True)
class GenerationArgs(SamplingArgs):
    """How replies are drawn, and how long they may be."""

    max_new_tokens: int = arg(2048, 'longest reply in tokens', group='generation', aliases=('max_tokens',), low=1)


def jinja_text(given: str) -> str:
    """The Jinja text that ``--chat_template`` means: a file's, or the text itself. UsageError for no such file."""
    if '{' in given or '\n' in given:
        return given
    try:
        return Path(os.path.expanduser(given)).read_text(encoding='utf-8')
    except UnicodeDecodeError:
        raise UsageError(f"--chat_template '{given}' is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(
            f"--chat_template '{given}' is no Jinja text and no file that can be read: {error.strerror}"
        ) from None
