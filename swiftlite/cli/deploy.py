"""``swiftlite deploy``."""

from swiftlite.args.deploy import DeployArgs


def main(args: DeployArgs) -> int:
    """Serve over OpenAI's API. Returns the exit status."""
    from swiftlite.cli.merge_first import merge_first
    from swiftlite.serve import server

    return server.run(merge_first(args)) or 0
