"""``swiftlite bench``."""

import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from swiftlite.args.bench_requests import MIXED_LENGTHS, RequestArgs, check_file
from swiftlite.args.fields import arg
from swiftlite.args.groups import EngineArgs
from swiftlite.errors import UsageError, nearest

KINDS = ('throughput', 'latency', 'serve')
ENDPOINTS = {
    'completions': 'completions',
    'chat': 'chat',
    '/v1/completions': 'completions',
    '/v1/chat/completions': 'chat',
    'chat/completions': 'chat',
    'chat-completions': 'chat',
}
GOODPUT = {'ttft': 'ttft', 'tpot': 'tpot', 'itl': 'itl', 'e2e': 'e2e', 'e2el': 'e2e'}
# groups of flags that only some kinds read
ONLY = {
    'workload': ('throughput', 'serve'),
    'throughput': ('throughput',),
    'latency': ('latency',),
    'serve': ('serve',),
}


@dataclass(frozen=True, kw_only=True)
class BenchArgs(RequestArgs):
    """Measure the engine, or a server."""

    summary: ClassVar[str] = 'Measure speed on seeded requests: throughput, latency of a batch, a server under load.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite bench throughput --model_type tiny-chat --num_prompts 64',
        'swiftlite bench throughput --config_preset qwen2.5-7b --workload chat decode-1 --max_model_len 4096',
        'swiftlite bench latency --model_type tiny-chat --batch_size 4 --output_len 64',
        'swiftlite bench serve --model_type tiny-chat --num_prompts 32 --request_rate 4 --goodput ttft:500 itl:100',
        'swiftlite bench serve --base_url http://127.0.0.1:8000/v1 --workload chat --request_rate 16',
    )

    kind: str = arg(
        'throughput',
        'throughput: all requests at once, tokens per second; latency: one batch, each token timed; serve: requests '
        "that arrive over time at a server, one that speaks OpenAI's API or one that is started for it, and what its "
        'users see',
        group='benchmark',
        choices=KINDS,
        positional=True,
    )
    repeats: int = arg(
        1, 'runs of each measurement; the median counts', group='benchmark', aliases=('num_iters',), low=1
    )
    num_warmups: int = arg(
        64, 'requests before it that are not measured: the first ones, with other token ids', group='benchmark', low=0
    )
    temperature: float = arg(0, 'spread of the choice; 0 takes the most likely token', group='benchmark', low=0)
    top_p: float = arg(1, 'choose among the most likely that make up p', group='benchmark', low=0, high=1)
    top_k: int = arg(-1, 'choose among the k most likely; -1: all', group='benchmark', low=-1)

    num_adapters: int = arg(32, 'random adapters that the -lora workloads use in turn', group='workload', low=1)
    lora_rank: int = arg(16, 'rank of them', group='workload', low=1)

    enable_lora: bool = arg(
        False, 'have room for adapters, though the workloads ask for the base model only', group='adapters'
    )
    max_loras: int = arg(None, 'adapters in one batch', group='adapters', low=1, shown='--num_adapters')
    max_lora_rank: int = arg(
        None,
        'highest rank of an adapter',
        group='adapters',
        aliases=('vllm_max_lora_rank',),
        low=1,
        shown='--lora_rank',
    )

    engine: list[str] = arg(
        ['swiftlite'],
        'swiftlite, vllm (where it is installed); both: ratios of one run',
        group='throughput',
        choices=('swiftlite', 'vllm'),
    )
    vllm_python: str | None = arg(
        None, 'python that has vllm, where it is installed apart', group='throughput', shown='this one'
    )
    baselines: list[str] | None = arg(
        None,
        'transformers.generate to compare with: batch (one padded batch), single (one prompt after the other), none',
        group='throughput',
        choices=('batch', 'single', 'none'),
        shown='batch single for mixed, else none',
    )
    detokenize: bool | None = arg(
        None, 'make texts of the tokens, too', group='throughput', shown='true with --temperature'
    )
    ceilings: bool = arg(
        True, 'measure what the device can do, copy and matrix product, in the same run', group='throughput'
    )

    batch_size: int = arg(1, 'requests at once', group='latency', low=1)
    input_len: int = arg(128, 'tokens of each prompt', group='latency', low=1)
    output_len: int = arg(512, 'tokens of each reply', group='latency', low=1)

    base_url: str | None = arg(
        None,
        'a server that runs, such as http://127.0.0.1:8000/v1; --model names its model',
        group='serve',
        shown="'swiftlite deploy' is started on a free port",
    )
    endpoint: str = arg('completions', 'completions or chat', group='serve', choices=ENDPOINTS)
    prompt_format: str | None = arg(
        None,
        'ids (the token ids of the workload) or text (as many common words)',
        group='serve',
        choices=('ids', 'text'),
        shown='ids for completions, text for chat',
    )
    api_key: str | None = arg(None, 'bearer token for the server', group='serve')
    request_rate: str = arg(
        'inf', 'requests that arrive per second, at random moments (Poisson); inf: all at once', group='serve'
    )
    burstiness: float = arg(
        1,
        'shape of the gaps between arrivals: 1 Poisson, below in bursts, above more even',
        group='serve',
        low=1e-3,
    )
    max_concurrency: int | None = arg(
        None, 'requests in flight at most; others wait, and their wait is no latency', group='serve', low=1
    )
    vocab_size: int | None = arg(
        None,
        'token ids of prompts are below it; servers of small models need it',
        group='serve',
        low=100,
        shown="the model's; 50000 with --base_url",
    )
    ignore_eos: bool = arg(
        True, 'have replies of exactly the wanted length, which swiftlite and vLLM understand', group='serve'
    )
    timeout: float = arg(600, 'seconds after which a request counts as failed', group='serve', low=0.001)
    goodput: list[str] = arg(
        [],
        'limits in milliseconds: ttft:200 tpot:50 itl:100 e2e:5000; requests that keep all of them are counted. '
        'tpot: mean per token after the first; itl: 99th percentile of the gaps',
        group='serve',
        split=',',
    )
    client_ceiling: bool = arg(False, 'also measure how many tokens a second this client can read', group='serve')
    plot: str | None = arg(None, 'png file for the distributions of TTFT and ITL; needs matplotlib', group='serve')

    def check(self) -> None:
        super().check()
        self._only_what_is_read()
        if self.top_p == 0:
            raise UsageError('--top_p must be above 0 and at most 1, not 0: --temperature 0 takes the likeliest token')
        if self.temperature == 0 and (self.top_p != 1 or self.top_k not in (-1, 0)):
            raise UsageError('--top_p and --top_k choose nothing with --temperature 0: give a temperature')
        self.limits()
        self.rate()
        if self.endpoint == 'chat' and self.prompt_format == 'ids':
            raise UsageError('--prompt_format ids does not go with --endpoint chat, whose prompts are texts')
        if self.base_url is not None:
            self._check_remote(self.base_url)
        for name, kind in (('output', 'json'), ('plot', 'png')):
            check_file(name, getattr(self, name), kind)
        self.fill('max_loras', self.num_adapters)
        self.fill('max_lora_rank', self.lora_rank)

    def limits(self) -> dict[str, float]:
        """--goodput as name → milliseconds."""
        found = {}
        for text in self.goodput:
            name, mark, value = text.partition(':')
            if name not in GOODPUT:
                raise UsageError(f"--goodput takes {', '.join(GOODPUT)}, not '{name}'{nearest(name, GOODPUT)}")
            if not mark or not re.fullmatch(r'\d+(\.\d*)?|\.\d+', value) or float(value) <= 0:
                raise UsageError(f"--goodput takes {name}:MILLISECONDS, such as {name}:200, not '{text}'")
            found[GOODPUT[name]] = float(value)
        return found

    def rate(self) -> float:
        """--request_rate as a number, infinite for all at once."""
        try:
            value = float(self.request_rate)
        except ValueError:
            value = 0.0
        if not value > 0:
            raise UsageError(
                f"--request_rate takes a number above 0, or inf for all at once, not '{self.request_rate}'"
            )
        return value

    @property
    def uses_adapters(self) -> bool:
        """Whether one of the workloads asks for adapters."""
        return self.kind != 'latency' and any(name.endswith('-lora') for name in self.workload)

    @property
    def names_model(self) -> bool:
        return self.base_url is None

    @property
    def uses_lora(self) -> bool:
        return self.enable_lora or self.uses_adapters

    @property
    def serves(self) -> bool:
        return self.kind == 'serve'

    def random_adapters(self) -> tuple[int, int]:
        return (self.num_adapters if self.uses_adapters else 0), self.lora_rank

    def _only_what_is_read(self) -> None:
        """UsageError for a flag that this kind, or these workloads, would not read."""
        lengths = self.kind == 'latency' or {'mixed', 'mixed-lora'} & set(self.workload)
        for f in fields(self):
            if not f.metadata or getattr(self, f.name) == _default(f):
                continue
            kinds = ONLY.get(f.metadata['group'], KINDS)
            if self.kind not in kinds:
                raise UsageError(f"--{f.name} is a flag of 'swiftlite bench {kinds[0]}', not of '{self.kind}'")
            if f.name in MIXED_LENGTHS and not lengths:
                raise UsageError(
                    f'--{f.name} is about --workload mixed: {", ".join(self.workload)} has its own lengths'
                )
            if f.name in ('max_loras', 'max_lora_rank', 'max_cpu_loras') and not (
                self.uses_adapters or self.enable_lora
            ):
                raise UsageError(f'--{f.name} is about adapters: give --workload chat-lora, or --enable_lora true')
            if f.name in ('num_adapters', 'lora_rank') and not self.uses_adapters:
                raise UsageError(f'--{f.name} is about workloads with adapters: --workload chat-lora, for instance')

    def _check_remote(self, url: str) -> None:
        if not re.match(r'https?://[^/:]', url):
            raise UsageError(f"--base_url is an address such as http://127.0.0.1:8000/v1, not '{url}'")
        if self.config_preset is not None:
            raise UsageError('--config_preset does not go with --base_url, where the server holds the model')
        if self.uses_adapters:
            raise UsageError('the -lora workloads need a server that is started for them: leave out --base_url')
        engine = {f.name for f in fields(EngineArgs)} | {'enable_lora'}
        for f in fields(self):
            if f.name in engine and getattr(self, f.name) != _default(f):
                raise UsageError(f'--{f.name} does not go with --base_url, whose server runs already')


def _default(f: Any) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default
