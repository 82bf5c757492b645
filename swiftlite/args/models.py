"""``swiftlite models``."""

from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.fields import Args, arg


@dataclass(frozen=True, kw_only=True)
class ModelsArgs(Args):
    """List what goes by a name."""

    summary: ClassVar[str] = 'List model types, templates and data sets.'
    examples: ClassVar[tuple[str, ...]] = ('swiftlite models', 'swiftlite models qwen2_5')

    search: str | None = arg(None, 'only names that contain this text', group='list', positional=True)
    json: bool = arg(False, 'as JSON', group='list')
