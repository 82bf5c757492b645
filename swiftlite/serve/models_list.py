"""The names a server answers to: the base model first, then its adapters; adapters come and go while it runs."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from swiftlite.engine.request import LoRARequest
from swiftlite.errors import nearest
from swiftlite.serve.errors import ApiError


@dataclass(frozen=True)
class ServedModel:
    """One entry of /v1/models. `lora` is None for the base."""

    name: str
    root: str
    lora: LoRARequest | None = None
    parent: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))


class ServedModels:
    """Names → models. `aliases` also answer for the base but are not listed (the path it was given as)."""

    def __init__(
        self,
        names: list[str],
        root: str,
        *,
        max_model_len: int = 0,
        owned_by: str = 'swiftlite',
        aliases: tuple[str, ...] = (),
    ) -> None:
        self._bases = {name: ServedModel(name, root) for name in names}
        self.base = self._bases[names[0]]
        self._aliases = dict.fromkeys((*aliases, root), self.base)
        self._adapters: dict[str, ServedModel] = {}
        self._next_id = itertools.count(1)
        self.max_model_len = max_model_len
        self.owned_by = owned_by

    def __iter__(self) -> Iterator[ServedModel]:
        yield from self._bases.values()
        yield from self._adapters.values()

    @property
    def names(self) -> list[str]:
        return [model.name for model in self]

    def get(self, name: str | None) -> ServedModel:
        """The model called `name` (None: the base): an exact match, else the only one that differs in - and _.

        Raises ApiError (404) that lists the names.
        """
        if name is None:
            return self.base
        known = {**self._aliases, **self._bases, **self._adapters}
        if name in known:
            return known[name]
        close = {model.name: model for key, model in known.items() if _loose(key) == _loose(name)}
        if len(close) == 1:
            return next(iter(close.values()))
        raise ApiError(
            f'The model {name!r} does not exist; this server has {", ".join(self.names)}{nearest(name, self.names)}.',
            status=404,
            param='model',
        )

    def is_base(self, name: str) -> bool:
        """Whether `name` is one that the base model answers to."""
        return name in self._bases or name in self._aliases

    def adapter(self, name: str) -> ServedModel | None:
        return self._adapters.get(name)

    def request_for(self, name: str, path: str) -> LoRARequest:
        """A request with a fresh id, so that the new weights never meet what was computed with older ones."""
        return LoRARequest(name, next(self._next_id), os.path.abspath(path))

    def add(self, lora: LoRARequest) -> ServedModel:
        self._adapters[lora.lora_name] = ServedModel(lora.lora_name, lora.lora_path, lora, self.base.name)
        return self._adapters[lora.lora_name]

    def remove(self, name: str) -> None:
        del self._adapters[name]

    def forget(self, lora: LoRARequest) -> None:
        """Take away an adapter that the engine has lost, unless its name stands for another one by now."""
        model = self._adapters.get(lora.lora_name)
        if model is not None and model.lora == lora:
            self.remove(lora.lora_name)

    def card(self, model: ServedModel) -> dict[str, Any]:
        """One object of the /v1/models list."""
        return {
            'id': model.name,
            'object': 'model',
            'created': model.created,
            'owned_by': self.owned_by,
            'root': model.root,
            'parent': model.parent,
            'max_model_len': self.max_model_len,
        }


def _loose(name: str) -> str:
    return name.replace('_', '-')
