"""Response ids."""

from __future__ import annotations

import uuid


def response_id(prefix: str, wanted: str | None = None) -> str:
    """'<prefix>-<what the client asked for, else 32 random hex digits>'."""
    return f'{prefix}-{wanted or uuid.uuid4().hex}'
