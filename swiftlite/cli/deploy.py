"""``swiftlite deploy``."""

from swiftlite.args.deploy import DeployArgs


def main(args: DeployArgs) -> int:
    """Serve over OpenAI's API. Returns the exit status."""
    args.source()  # a wrong name is known before anything is loaded
    from swiftlite.cli.merge_first import merge_first
    from swiftlite.serve import early

    return early.run(merge_first(args)) or 0
