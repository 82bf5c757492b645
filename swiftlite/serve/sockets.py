"""Where a server listens."""

import contextlib
import errno
import resource
import socket

from swiftlite.errors import SwiftliteError

BACKLOG = 2048
CONNECTIONS = 65536  # a descriptor each; a shell gives a process 1,024


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


def allow_connections() -> None:
    """Let this process have as many connections as the system lets it, up to CONNECTIONS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then it is as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
