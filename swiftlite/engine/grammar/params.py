"""What an answer has to look like (vLLM's field names), as plain data; `grammar` turns it into token masks."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Any

from ...errors import nearest
from ..errors import RequestError

MAX_SOURCE = 1 << 17  # characters of a schema, a regex or a grammar
MAX_CHOICES = 4096
MAX_DEPTH = 64  # levels of a schema
KINDS = ('json', 'regex', 'choice', 'grammar', 'json_object')


@dataclass
class StructuredOutputsParams:
    """The shape of an answer: exactly one of json, regex, choice, grammar and json_object.

    json: a JSON schema, as a dict or as text. regex: the whole answer matches it (Rust syntax, no look-around). choice:
    the answer is one of these texts. grammar: a Lark grammar in llguidance's dialect, whose rule `start` is the answer,
    or the EBNF of llama.cpp and xgrammar (`root ::= …`). json_object: any JSON object.

    JSON comes out as `json.dumps` writes it, {"a": 1, "b": [2, 3]}: free whitespace leads small models astray.
    whitespace_pattern, a regex, allows other whitespace between its parts; disable_any_whitespace allows none.
    disable_additional_properties closes every object of the schema that does not say whether it is closed. oneOf is
    read as anyOf.

    disable_fallback and backend are vLLM's and change nothing: there is one implementation. structural_tag is refused.

    Raises:
        RequestError: none or several are given, or one is not of its type; says which.
    """

    json: str | dict[str, Any] | bool | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    disable_fallback: InitVar[Any] = None
    backend: InitVar[Any] = None
    structural_tag: InitVar[Any] = None

    def __post_init__(self, disable_fallback: Any, backend: Any, structural_tag: Any) -> None:
        if structural_tag is not None:
            raise RequestError('structural_tag is not supported; write the structure as a Lark grammar (grammar).')
        if self.json_object is not None and not isinstance(self.json_object, bool):
            raise RequestError(f'json_object must be true or false, got {self.json_object!r}.')
        if self.json_object is False:
            self.json_object = None
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = ' and '.join(given) if given else 'none'
            raise RequestError(f'structured_outputs takes exactly one of {", ".join(KINDS)}; got {found}.')
        for name in ('regex', 'grammar', 'whitespace_pattern'):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise RequestError(f'{name} must be non-empty text, got {value!r}.')
        for name in ('disable_any_whitespace', 'disable_additional_properties'):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f'{name} must be true or false, got {getattr(self, name)!r}.')
        if self.disable_any_whitespace and self.whitespace_pattern is not None:
            raise RequestError('whitespace_pattern and disable_any_whitespace exclude each other; give one of them.')
        if self.choice is not None:
            self._check_choice()
        if self.json is not None:
            self.json = _schema(self.json)
        self._check_sizes()

    @property
    def kind(self) -> str:
        """Which of KINDS is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    def key(self) -> str:
        """Text that is equal for equal constraints."""
        rest = [self.whitespace_pattern, self.disable_any_whitespace, self.disable_additional_properties]
        return jsonlib.dumps([self.kind, getattr(self, self.kind), *rest])

    def _check_choice(self) -> None:
        choice = self.choice
        good = isinstance(choice, (list, tuple)) and choice and all(isinstance(c, str) and c for c in choice)
        if not good:
            raise RequestError(f'choice must be a list of non-empty texts, got {choice!r}.')
        assert choice is not None
        if len(choice) > MAX_CHOICES:
            raise RequestError(f'choice has {len(choice)} texts; the most is {MAX_CHOICES}.')
        self.choice = list(dict.fromkeys(choice))

    def _check_sizes(self) -> None:
        value = getattr(self, self.kind)
        size = len(value) if isinstance(value, str) else len(jsonlib.dumps(value))
        if size > MAX_SOURCE:
            raise RequestError(f'{self.kind} has {size} characters; the most is {MAX_SOURCE}.')
        if self.whitespace_pattern is not None and len(self.whitespace_pattern) > 256:
            raise RequestError(f'whitespace_pattern has {len(self.whitespace_pattern)} characters; the most is 256.')


GuidedDecodingParams = StructuredOutputsParams  # its name in older scripts


def structured(value: Any) -> StructuredOutputsParams:
    """`value` or, from a dict of its fields, a new one; RequestError names a field that does not exist."""
    if isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, dict):
        raise RequestError(f'structured_outputs must be StructuredOutputsParams or a dict, got {type(value).__name__}.')
    names = list(StructuredOutputsParams.__dataclass_fields__)
    for name in value:
        if name not in names:
            raise RequestError(f"structured_outputs has no field '{name}'{nearest(str(name), names)}.")
    return StructuredOutputsParams(**value)


def _schema(value: Any) -> dict[str, Any]:
    """A JSON schema as a dict; true is the schema of everything."""
    if isinstance(value, str):
        try:
            value = jsonlib.loads(value)
        except ValueError as error:
            raise RequestError(f'json is no valid JSON: {error}.') from None
        except RecursionError:
            raise RequestError('json is nested too deeply.') from None
    if value is True:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f'json must be a JSON schema, an object, got {value!r:.80}.')
    try:
        jsonlib.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(f'json holds what is no JSON: {error}.') from None
    except RecursionError:
        raise RequestError('json is nested too deeply.') from None
    _check_depth(value, MAX_DEPTH)
    return value


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise RequestError(f'json is nested too deeply; the most is {MAX_DEPTH} levels.')
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, left - 1)
