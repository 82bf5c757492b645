"""What can go wrong while serving, by whose fault it is."""

from __future__ import annotations

from ..errors import SwiftliteError


class RequestError(SwiftliteError, ValueError):
    """The request cannot be served as it is (HTTP 400); nothing else is affected."""


class EngineDeadError(SwiftliteError):
    """The engine process or a rank died; the request was not finished (HTTP 503)."""
