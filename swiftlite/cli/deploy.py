"""``swiftlite deploy``."""

from swiftlite.args.deploy import DeployArgs


def main(args: DeployArgs) -> int:
    """Serve over OpenAI's API. Returns the exit status."""
    from swiftlite.serve import server

    return server.run(args) or 0
