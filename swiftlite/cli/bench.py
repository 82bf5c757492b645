"""``swiftlite bench``."""

from swiftlite.args.bench import BenchArgs


def main(args: BenchArgs) -> int:
    """Measure. Returns the exit status."""
    args.source()  # a wrong name is known before anything is loaded
    from swiftlite.bench import throughput

    return throughput.run(args) or 0
