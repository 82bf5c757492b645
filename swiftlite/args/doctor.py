"""``swiftlite doctor``."""

from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.fields import Args, arg


@dataclass(frozen=True, kw_only=True)
class DoctorArgs(Args):
    """Say what is installed and what would run."""

    summary: ClassVar[str] = 'Print versions, devices and memory, and what would run here.'
    examples: ClassVar[tuple[str, ...]] = ('swiftlite doctor', 'swiftlite doctor --json true --try_model false')

    try_model: bool = arg(True, 'let tiny-chat answer a question', group='report')
    json: bool = arg(False, 'as JSON', group='report')
