"""Which model is measured, and on which requests: what kinds of ``swiftlite bench`` have in common."""

from dataclasses import dataclass
from pathlib import Path

from swiftlite.args.fields import arg
from swiftlite.args.groups import EngineArgs, NumberArgs, WeightsArgs
from swiftlite.errors import UsageError

NAMED = ('chat', 'nano', 'decode-1', 'decode-64', 'prefill', 'prefix')
WORKLOADS = ('mixed', *NAMED, *(f'{name}-lora' for name in ('mixed', *NAMED)))
PRESETS = ('qwen2.5-7b', 'qwen2.5-0.5b', 'llama3-8b')
MIXED_LENGTHS = ('min_input_len', 'max_input_len', 'min_output_len', 'max_output_len')


@dataclass(frozen=True, kw_only=True)
class RequestArgs(EngineArgs, NumberArgs, WeightsArgs):
    """A model, or the shape of one, and seeded requests."""

    config_preset: str | None = arg(
        None,
        f'in place of a model: the shape of one ({", ".join(PRESETS)}) with random weights and a stand-in tokenizer; '
        'speed does not depend on the values',
        group='model',
        aliases=('preset',),
        choices=PRESETS,
    )
    output: str | None = arg(
        None,
        'file for the numbers, a JSON object a line; serve writes every request into it',
        group='benchmark',
        aliases=('result_filename',),
    )
    seed: int = arg(0, 'of prompts, lengths, arrivals and random weights', group='benchmark')

    workload: list[str] = arg(
        ['mixed'],
        'requests: mixed (lengths by the flags below), chat, nano, decode-1, decode-64, prefill, prefix; with -lora '
        'behind the name (chat-lora), each uses one of --num_adapters in turn. docs/bench.md describes them',
        group='workload',
        aliases=('workloads',),
        choices=WORKLOADS,
        split=',',
    )
    num_prompts: int | None = arg(
        None, 'requests: the first ones of each workload', group='workload', low=1, shown='64 of mixed, else all'
    )
    min_input_len: int = arg(16, 'mixed: shortest prompt in tokens', group='workload', low=1)
    max_input_len: int = arg(256, 'mixed: longest prompt in tokens', group='workload', low=1)
    min_output_len: int = arg(16, 'mixed: shortest reply in tokens', group='workload', low=1)
    max_output_len: int = arg(128, 'mixed: longest reply in tokens', group='workload', low=1)

    def check(self) -> None:
        super().check()
        for low, high in (MIXED_LENGTHS[:2], MIXED_LENGTHS[2:]):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(f'--{low} {getattr(self, low)} is larger than --{high} {getattr(self, high)}')
        if self.config_preset is not None:
            if self.names_model and (self.model_type or self.model_id_or_path):
                raise UsageError('--config_preset stands in place of a model: leave out one of them')
            if self.load_format == 'safetensors':
                raise UsageError('--config_preset has no weights: leave out --load_format safetensors')
            object.__setattr__(self, 'load_format', 'dummy')

    @property
    def names_model(self) -> bool:
        """Whether the flags say which model is run, and not what a server calls it."""
        return True

    @property
    def uses_lora(self) -> bool:
        """Whether the engine has room for adapters."""
        return False

    @property
    def serves(self) -> bool:
        """Whether the engine runs in a server, which has the GPU."""
        return False

    def random_adapters(self) -> tuple[int, int]:
        """How many random adapters the requests use in turn, and of which rank."""
        return 0, 1


def check_file(name: str, given: str | None, kind: str) -> None:
    if given is None:
        return
    path = Path(given).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        why = 'is a folder' if path.is_dir() else f"cannot be written: '{path.parent}' is no folder"
        raise UsageError(f"--{name} '{given}' {why}: give the name of a {kind} file")
