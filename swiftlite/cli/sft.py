"""``swiftlite sft``."""

from swiftlite.args.sft import SftArgs


def main(args: SftArgs) -> int:
    """Fine-tune. Returns the exit status."""
    from swiftlite.train import sft

    sft.run(args)
    return 0
