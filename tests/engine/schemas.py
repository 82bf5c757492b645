"""Random small JSON schemas, and what fits them, written from the words of the standard."""

import json
import re
from typing import Any

from hypothesis import strategies as st

NAMES = ['a', 'b', 'name', 'näme', 'x y', '"q"', '\\']

small = st.integers(0, 3)
values = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4))


def integers(low: int, more: int) -> dict[str, Any]:
    return {'type': 'integer', 'minimum': low, 'maximum': low + 9 * more}


def strings(low: int, more: int) -> dict[str, Any]:
    return {'type': 'string', 'minLength': low, 'maxLength': low + 2 * more}


def arrays(items: dict[str, Any], low: int, more: int) -> dict[str, Any]:
    return {'type': 'array', 'items': items, 'minItems': low, 'maxItems': low + more}


def objects(parts: dict[str, Any], required: list[str]) -> dict[str, Any]:
    names = [name for name in required if name in parts]
    return {'type': 'object', 'properties': parts, 'required': names, 'additionalProperties': False}


scalars = st.one_of(
    st.sampled_from([{'type': 'null'}, {'type': 'boolean'}]),
    st.builds(integers, st.integers(-50, 50), small),
    st.builds(strings, small, small),
    st.sampled_from(
        [{'type': 'string', 'pattern': '^[a-c]{2,4}$'}, {'type': 'string', 'pattern': '^(x|yy)+z$', 'maxLength': 9}]
    ),
    st.builds(lambda options: {'enum': options}, st.lists(values, min_size=1, max_size=4)),
    st.builds(lambda value: {'const': value}, st.sampled_from([1, 'é"', None, [1, 'b'], {'k': False}])),
)


def compound(inner: st.SearchStrategy) -> st.SearchStrategy:
    names = st.sampled_from(NAMES)
    return st.one_of(
        st.builds(arrays, inner, st.integers(0, 2), st.integers(0, 2)),
        st.builds(objects, st.dictionaries(names, inner, max_size=3), st.lists(names, unique=True)),
        st.builds(lambda options: {'anyOf': options}, st.lists(inner, min_size=1, max_size=3)),
    )


schemas = st.recursive(scalars, compound, max_leaves=6)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value fits a schema of the kinds above."""
    if 'anyOf' in schema:
        return any(fits(value, part) for part in schema['anyOf'])
    if 'enum' in schema or 'const' in schema:
        return any(json.dumps(value) == json.dumps(v) for v in schema.get('enum', [schema.get('const')]))
    kind = schema['type']
    if kind == 'null':
        return value is None
    if kind == 'boolean':
        return isinstance(value, bool)
    if kind == 'integer':
        return type(value) is int and schema.get('minimum', value) <= value <= schema.get('maximum', value)
    if kind == 'string':
        good = isinstance(value, str) and schema.get('minLength', 0) <= len(value) <= schema.get('maxLength', 10**9)
        return good and re.search(schema.get('pattern', ''), value) is not None
    if kind == 'array':
        good = isinstance(value, list) and schema.get('minItems', 0) <= len(value) <= schema['maxItems']
        return good and all(fits(item, schema['items']) for item in value)
    known = schema['properties']
    good = isinstance(value, dict) and set(schema['required']) <= set(value) <= set(known)
    return good and all(fits(item, known[name]) for name, item in value.items())
