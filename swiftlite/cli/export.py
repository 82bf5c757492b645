"""``swiftlite export``."""

from swiftlite.args.export import ExportArgs


def main(args: ExportArgs) -> int:
    """Merge a LoRA. Returns the exit status."""
    from swiftlite.export import merge

    merge.run(args)
    return 0
