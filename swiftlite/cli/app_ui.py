"""``swiftlite app-ui``."""

from importlib.util import find_spec

from swiftlite.args.app_ui import AppUiArgs
from swiftlite.errors import SwiftliteError


def main(args: AppUiArgs) -> int:
    """Serve the chat page. Returns the exit status."""
    if find_spec('gradio') is None:
        raise SwiftliteError("app-ui needs gradio, which is not installed: pip install 'swiftlite[ui]'")
    from swiftlite.cli.merge_first import merge_first
    from swiftlite.serve.sockets import listen
    from swiftlite.ui import server

    listen(args.host, args.port).close()  # a busy port is known before a model is merged or loaded
    return server.run(merge_first(args))
