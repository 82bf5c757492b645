"""``swiftlite bench``."""

import importlib

from swiftlite.args.bench import BenchArgs


def main(args: BenchArgs) -> int:
    """Measure. Returns the exit status."""
    if args.config_preset is None and args.base_url is None:
        args.source()  # a wrong name is known before anything is loaded
    return importlib.import_module(f'swiftlite.bench.{args.kind}').run(args) or 0
