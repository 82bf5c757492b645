"""Options of vLLM's `LLM(...)` that are no fields of the engine's configuration, and what becomes of them."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import SwiftliteError
from ..registry.vllm_flags import ENGINE

log = logging.getLogger(__name__)


def without_needless(options: dict[str, Any]) -> dict[str, Any]:
    """The other options, after one notice; SwiftliteError for a value that asks for what this engine does not do."""
    needless = {}
    for name, value in options.items():
        row = ENGINE.get(name)
        if row is None:
            continue
        if not row.accepts(_text(value)) and not (row.needless and value is None):
            valid = ' or '.join(map(repr, row.values))
            can = f'can only be {valid} here' if row.values else 'cannot be set here'
            raise SwiftliteError(f'{name} is {value!r}, but {can}: {row.reason}.')
        if row.needless:
            needless[name] = row.reason
    if needless:
        reasons = '; '.join(f'{name} ({reason})' for name, reason in needless.items())
        log.warning('These options change nothing here: %s.', reasons)
    return {name: value for name, value in options.items() if name not in ENGINE}


def _text(value: Any) -> str:
    """The value as it would be typed: None, False, 0 and empty ones turn a feature off."""
    return '' if value is None or (not value and value != 0) else str(value)
