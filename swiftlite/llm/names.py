"""`ModelType.qwen_7b_chat` and `TemplateType.qwen`: the registry's names as attributes."""

from collections.abc import Iterator, Mapping
from typing import Any

from swiftlite.errors import nearest
from swiftlite.registry.models import MODELS
from swiftlite.registry.resolve import get_model
from swiftlite.registry.templates import TEMPLATES


class Names:
    """The keys of a table as attributes, ``-`` and ``.`` written ``_``; iterating yields the keys themselves."""

    def __init__(self, what: str, table: Mapping[str, Any]) -> None:
        self._what = what
        self._table = table

    def __getattr__(self, attribute: str) -> str:
        if not attribute.startswith('__'):
            for name in self._table:
                if _attribute(name) == attribute:
                    return name
        raise AttributeError(
            f"there is no {self._what} '{attribute}'{nearest(attribute, map(_attribute, self._table))}"
        )

    def __dir__(self) -> list[str]:
        return sorted(map(_attribute, self._table))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)


def _attribute(name: str) -> str:
    return name.replace('-', '_').replace('.', '_')


ModelType = Names('model type', MODELS)
TemplateType = Names('template', TEMPLATES)


def get_default_template_type(model_type: str) -> str | None:
    """The template of a model type, None: its checkpoint says it. UsageError with the nearest name if unknown."""
    return get_model(model_type).template
