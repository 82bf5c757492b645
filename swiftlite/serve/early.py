"""What comes before a server's own imports, which take seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiftlite.engine.process.child import EngineProcess

if TYPE_CHECKING:
    from swiftlite.args.deploy import DeployArgs


def run(args: DeployArgs) -> int:
    """`server.run`, whose engine process imports at the same time; it does not outlive this call."""
    process = EngineProcess()
    try:
        from swiftlite.serve import server

        return server.run(args, process)
    finally:
        process.kill()
