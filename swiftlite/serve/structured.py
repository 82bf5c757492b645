"""response_format, structured_outputs and the guided_* fields → the one form that an answer has to have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swiftlite.engine.errors import RequestError
from swiftlite.engine.grammar.params import StructuredOutputsParams, structured
from swiftlite.errors import nearest
from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import GenerationBody

FORMATS = ('text', 'json_object', 'json_schema')
GUIDED = ('json', 'regex', 'choice', 'grammar', 'json_object')


def wanted_structure(body: GenerationBody) -> StructuredOutputsParams | None:
    """The structure that the body asks for, None for free text; ApiError for a wrong one, or for several."""
    found: dict[str, StructuredOutputsParams] = {}
    for field, settings in _given(body).items():
        try:
            found[field] = structured(settings)
        except RequestError as error:
            said = str(error) if str(error).startswith(field) else f'{field}: {error}'
            raise ApiError(said, param=field) from None
    if len(found) > 1:
        raise ApiError(f'{" and ".join(found)} both say what the answer looks like; give one.', param=next(iter(found)))
    params = next(iter(found.values()), None)
    pattern = body.guided_whitespace_pattern
    return params if params is None or pattern is None else replace(params, whitespace_pattern=pattern)


def structure_error(body: GenerationBody) -> Callable[[str], ApiError]:
    """The error of a structure that cannot be used: about the field that asked for it."""
    return functools.partial(ApiError, param=next(iter(_given(body)), None))


def _given(body: GenerationBody) -> dict[str, dict[str, Any]]:
    """Field → what it asks for, as the fields of StructuredOutputsParams."""
    found: dict[str, dict[str, Any]] = {}
    if body.response_format is not None and (settings := _response_format(body.response_format)) is not None:
        found['response_format'] = settings
    if body.structured_outputs:
        found['structured_outputs'] = body.structured_outputs
    for kind in GUIDED:
        value = getattr(body, f'guided_{kind}')
        if value not in (None, False):
            found[f'guided_{kind}'] = {kind: value}
    return found


def _response_format(given: dict[str, Any]) -> dict[str, Any] | None:
    kind = given.get('type')
    if kind not in FORMATS:
        hint = nearest(kind, FORMATS) if isinstance(kind, str) else ''
        raise ApiError(
            f'response_format.type is {kind!r:.60}; valid are {", ".join(FORMATS)}{hint}.', param='response_format.type'
        )
    if kind == 'text':
        return None
    if kind == 'json_object':
        return {'json_object': True}
    wrapped = given.get('json_schema')
    schema = wrapped.get('schema') if isinstance(wrapped, dict) else None
    if not isinstance(schema, dict):
        raise ApiError(
            'response_format.json_schema must be an object like {"name": …, "schema": {…}}.',
            param='response_format.json_schema',
        )
    return {'json': schema}
