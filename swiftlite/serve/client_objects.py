"""What clients send and get: XRequestConfig, OpenAI's objects with attributes, and the server's refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swiftlite.errors import SwiftliteError, UsageError

# what OpenAI's objects may lack, and then stands for None
OPTIONAL = frozenset(
    (
        'content',
        'role',
        'tool_calls',
        'logprobs',
        'finish_reason',
        'stop_reason',
        'usage',
        'parent',
        'system_fingerprint',
    )
)


class ServerError(SwiftliteError):
    """The server refused or broke off the request: its sentence, and its HTTP `status` (None inside a stream)."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class XRequestConfig:
    """How to answer; None leaves a value to the server's defaults.

    max_tokens None: all that the context has left. n: number of choices. seed: the same answer every time. stop: texts
    that end the answer. stream: `inference_client` returns an iterator of chunks.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_beams: int = 1
    best_of: int | None = None
    length_penalty: float | None = None
    n: int = 1
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    logit_bias: dict[int, float] | None = None
    logprobs: bool | int | None = None  # chat: True; completion: how many
    top_logprobs: int | None = None
    stream: bool = False

    def body(self) -> dict[str, Any]:
        """The fields of a request body."""
        if self.num_beams != 1:
            raise UsageError(f'num_beams is {self.num_beams!r}, but servers have no beam search: leave it at 1')
        return {name: value for name, value in asdict(self).items() if value is not None and name != 'num_beams'}


class Reply:
    """A JSON object of the server with its fields as attributes: ``reply.choices[0].message.content``."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = {name: _wrap(value) for name, value in fields.items()}

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get('_fields', {})
        if name in fields or name in OPTIONAL:
            return fields.get(name)
        raise AttributeError(f"this reply has no '{name}': it has {', '.join(fields)}")

    def __dir__(self) -> list[str]:
        return [*self._fields, 'to_dict']

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self._fields == other._fields

    def __repr__(self) -> str:
        return f'Reply({", ".join(f"{name}={value!r}" for name, value in self._fields.items())})'

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {name: _unwrap(value) for name, value in self._fields.items()}


def _wrap(value: Any) -> Any:
    if isinstance(value, dict):
        return Reply(value)
    return [_wrap(item) for item in value] if isinstance(value, list) else value


def _unwrap(value: Any) -> Any:
    if isinstance(value, Reply):
        return value.to_dict()
    return [_unwrap(item) for item in value] if isinstance(value, list) else value
