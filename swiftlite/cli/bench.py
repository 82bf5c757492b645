"""``swiftlite bench``."""

import importlib

from swiftlite.args.bench import BenchArgs
from swiftlite.args.bench_adapters import AdapterBenchArgs
from swiftlite.args.bench_train import TrainBenchArgs


def main(args: BenchArgs | AdapterBenchArgs | TrainBenchArgs) -> int:
    """Measure. Returns the exit status."""
    own = {AdapterBenchArgs: 'adapters', TrainBenchArgs: 'train'}
    kind = args.kind if isinstance(args, BenchArgs) else own[type(args)]
    if args.config_preset is None and getattr(args, 'base_url', None) is None:
        args.source()  # a wrong name is known before anything is loaded
    return importlib.import_module(f'swiftlite.bench.{kind}').run(args) or 0
