"""ms-swift's `get_template`, and its requests → token ids (by `Template.encode`, as everywhere)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swiftlite.errors import SwiftliteError, nearest
from swiftlite.template import UNSET, Template
from swiftlite.template import get_template as find_template
from swiftlite.template.conversation import conversation

KEYS = ('query', 'history', 'system')
MEDIA = ('images', 'videos', 'audios', 'objects')


def get_template(template_type: str | None, tokenizer: Any, default_system: str | None = None) -> Template:
    """The template of that name; None: the one that fits the tokenizer's own.

    `default_system` replaces the template's own in requests without a 'system'; '' stands for no system turn.
    """
    return find_template(
        template_type, tokenizer, default_system=UNSET if default_system is None else default_system or None
    )


def request_messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Messages of {'query', 'history', 'system'}; SwiftliteError for any other key that holds something."""
    if not isinstance(request, Mapping):
        raise SwiftliteError(
            f"a request is {{'query': text, 'history': pairs, 'system': text}}, got {type(request).__name__}"
        )
    for key, value in request.items():
        if key in MEDIA:
            if value:
                raise SwiftliteError(f"'{key}' cannot be answered: no model here sees or hears, they read text only")
        elif key not in KEYS:
            close = nearest(str(key), KEYS) or f': valid are {", ".join(KEYS)}'
            raise SwiftliteError(f"a request has no '{key}'{close}")
    if 'query' not in request:
        raise SwiftliteError("a request needs a 'query'")
    return conversation(request['query'], request.get('history'), request.get('system'))
