"""``swiftlite bench adapters``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from swiftlite.args.bench_requests import MIXED_LENGTHS, NAMED, RequestArgs, check_file
from swiftlite.args.fields import arg
from swiftlite.errors import UsageError

MOST_ON_DEVICE = 128  # adapters in one batch, where --max_loras does not say


@dataclass(frozen=True, kw_only=True)
class AdapterBenchArgs(RequestArgs):
    """Measure the engine against the number of adapters."""

    summary: ClassVar[str] = 'Measure throughput, time to first token and memory against the number of LoRA adapters.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite bench adapters --model_type tiny-chat --num_adapters 1 4 --lora_rank 4 --num_prompts 16 '
        '--latency_requests 8',
        'swiftlite bench adapters --config_preset qwen2.5-7b --workload chat --num_adapters 1 8 32 128 '
        '--max_model_len 4096 --output 7b.jsonl --plot 7b.png',
        'swiftlite bench adapters --config_preset qwen2.5-0.5b --workload chat --num_adapters 10 100 1000 '
        '--lora_rank 8 16 32 --adapter_choice zipf --max_model_len 4096',
        'swiftlite bench adapters --config_preset qwen2.5-7b --num_adapters 8 --latency_requests 0 --num_loads 1000',
    )

    output: str | None = arg(
        None, 'file for the numbers, a JSON object a line', group='benchmark', aliases=('result_filename',)
    )
    workload: list[str] = arg(
        ['mixed'],
        'requests, one of mixed (lengths by the flags below), chat, nano, decode-1, decode-64, prefill, prefix; '
        'docs/bench.md describes them',
        group='workload',
        choices=('mixed', *NAMED),
    )

    num_adapters: list[int] = arg(
        [1, 8, 32],
        'how many adapters there are, each number measured by itself; the base (0), with room for them, always comes '
        'first',
        group='adapters',
        low=0,
        split=',',
    )
    lora_rank: list[int] = arg(
        [16],
        'rank of the adapters; of several, each adapter has the next one. Of each rank 8 are written, and the others '
        'are links to them: every adapter has its own id, memory and pages all the same',
        group='adapters',
        low=1,
        split=',',
    )
    adapter_choice: str = arg(
        'round_robin',
        'which adapter a request uses: round_robin: each the next one, and all were read before; zipf: random, the '
        'k-th with a weight of 1/k, measured cold (read when it is first asked for), then warm',
        group='adapters',
        choices=('round_robin', 'zipf'),
    )
    adapter_dir: str | None = arg(
        None,
        'folder for the files of the adapters, which are gone afterwards',
        group='adapters',
        shown='a temporary one',
    )
    max_loras: int = arg(
        None,
        'adapters in one batch',
        group='adapters',
        low=1,
        shown=f'the most of --num_adapters, at most {MOST_ON_DEVICE}',
    )
    max_lora_rank: int = arg(
        None,
        'highest rank of an adapter',
        group='adapters',
        aliases=('vllm_max_lora_rank',),
        low=1,
        shown='the highest of --lora_rank',
    )
    lora_off: bool = arg(False, 'at the end, also measure an engine without room for adapters', group='adapters')

    request_rate: float = arg(
        16,
        'requests that arrive per second, at random moments (Poisson), where the time to the first token is measured',
        group='latency',
        low=1e-3,
    )
    latency_requests: int = arg(
        160,
        'requests that arrive at this rate for each number of adapters; 0: throughput alone',
        group='latency',
        low=0,
    )

    num_loads: int = arg(
        0,
        'then load and unload adapters so often, with a request now and then, and show memory before and after; and '
        'the times of steps while adapters are read and uploaded',
        group='loads',
        low=0,
    )
    plot: str | None = arg(
        None,
        'png file for throughput, time to first token and memory against the number of adapters; needs matplotlib',
        group='benchmark',
    )

    def check(self) -> None:
        super().check()
        if len(self.workload) != 1:
            raise UsageError(f'--workload takes one here, not {len(self.workload)} ({", ".join(self.workload)})')
        if self.workload != ['mixed'] and (name := self.changed(MIXED_LENGTHS)):
            raise UsageError(f'--{name} is about --workload mixed: {self.workload[0]} has its own lengths')
        if self.latency_requests == 0 and self.changed(['request_rate']):
            raise UsageError('--request_rate is about the requests of --latency_requests, which is 0')
        if self.num_loads and self.max_num_seqs is not None and self.max_num_seqs < 2:
            raise UsageError('--num_loads measures requests beside others, which --max_num_seqs 1 does not take')
        if self.max_lora_rank is not None and self.max_lora_rank < max(self.lora_rank):
            raise UsageError(f'--lora_rank {max(self.lora_rank)} is above --max_lora_rank {self.max_lora_rank}')
        if self.adapter_dir is not None and not Path(self.adapter_dir).expanduser().is_dir():
            raise UsageError(f"--adapter_dir '{self.adapter_dir}' is no folder")
        for name, kind in (('output', 'json'), ('plot', 'png')):
            check_file(name, getattr(self, name), kind)
        self.fill('max_loras', min(max(1, *self.num_adapters), MOST_ON_DEVICE))
        self.fill('max_lora_rank', max(self.lora_rank))
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise UsageError(f'--max_cpu_loras {self.max_cpu_loras} is below --max_loras {self.max_loras}')

    @property
    def uses_lora(self) -> bool:
        return True
