"""``swiftlite bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import EngineArgs, NumberArgs, WeightsArgs
from swiftlite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BenchArgs(EngineArgs, NumberArgs, WeightsArgs):
    """Measure the engine against transformers."""

    summary: ClassVar[str] = (
        'Measure tokens per second on prompts of mixed length, beside transformers in the same run.'
    )
    examples: ClassVar[tuple[str, ...]] = ('swiftlite bench throughput --model_type tiny-chat --num_prompts 64',)

    kind: str = arg('throughput', 'what to measure', group='benchmark', choices=('throughput',), positional=True)
    num_prompts: int = arg(64, 'prompts', group='benchmark', low=1)
    min_input_len: int = arg(16, 'shortest prompt in tokens', group='benchmark', low=1)
    max_input_len: int = arg(256, 'longest prompt in tokens', group='benchmark', low=1)
    min_output_len: int = arg(16, 'shortest reply in tokens', group='benchmark', low=1)
    max_output_len: int = arg(128, 'longest reply in tokens', group='benchmark', low=1)
    baselines: list[str] = arg(
        ['batch', 'single'],
        'transformers.generate to compare with: batch (one padded batch), single (one prompt after the other), none',
        group='benchmark',
        choices=('batch', 'single', 'none'),
    )
    output: str | None = arg(None, 'json file for the numbers', group='benchmark')
    seed: int = arg(0, 'of prompts and lengths', group='benchmark')

    def check(self) -> None:
        super().check()
        if self.output is None:
            return
        path = Path(self.output).expanduser()
        if path.is_dir() or not path.parent.is_dir():
            why = 'is a folder' if path.is_dir() else f"cannot be written: '{path.parent}' is no folder"
            raise UsageError(f"--output '{self.output}' {why}: give the name of a json file")
