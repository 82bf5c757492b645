"""``swiftlite infer``."""

from swiftlite.args.infer import InferArgs


def main(args: InferArgs) -> int:
    """Chat, or answer a data set. Returns the exit status."""
    from swiftlite.infer import run

    return run.run(args) or 0
