"""``swiftlite infer``."""

from swiftlite.args.infer import InferArgs


def main(args: InferArgs) -> int:
    """Chat, or answer a data set. Returns the exit status."""
    args.source()  # a wrong name is known before anything is loaded
    from swiftlite.cli.merge_first import merge_first
    from swiftlite.infer import run

    return run.run(merge_first(args)) or 0
