"""``swiftlite eval``."""

from swiftlite.args.eval import EvalArgs


def main(args: EvalArgs) -> int:
    """Measure answers. Returns the exit status."""
    from swiftlite.cli.merge_first import merge_first
    from swiftlite.eval import run

    return run.run(merge_first(args)) or 0
