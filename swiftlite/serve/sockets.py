"""Where a server listens."""

import errno
import socket

from swiftlite.errors import SwiftliteError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; SwiftliteError says why there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f'Port {port} of {host} is in use: give another one with --port, or 0 for a free one.'
            raise SwiftliteError(message) from None
        reason = error.strerror or error
        raise SwiftliteError(f'The server cannot listen on --host {host} --port {port}: {reason}.') from None
