"""``swiftlite models``."""

from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.custom import register_dataset_info, register_file
from swiftlite.args.fields import Args, arg

KINDS = ('models', 'templates', 'datasets')


@dataclass(frozen=True, kw_only=True)
class ModelsArgs(Args):
    """List what goes by a name."""

    summary: ClassVar[str] = 'List model types, templates and data sets, and what they support.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite models',
        'swiftlite models qwen2_5 --kind models --chat true',
        'swiftlite models --tools true --json true',
    )

    search: str | None = arg(None, 'only names and hub ids that contain this text', group='list', positional=True)
    kind: list[str] = arg([], 'only these tables', group='list', choices=KINDS, shown='all')
    chat: bool | None = arg(None, 'true: chat models only; false: base models only', group='list')
    tools: bool | None = arg(None, 'only models and templates that call tools, or that do not', group='list')
    thinking: bool | None = arg(None, 'only models and templates that think first, or that do not', group='list')
    size: str | None = arg(None, "only models of this size, such as 7B; '<=7B' up to it", group='list')
    json: bool = arg(False, 'as JSON', group='list')
    custom_register_path: str | None = arg(
        None, "YAML or JSON file with models, templates and data sets of one's own, listed too", group='list'
    )
    custom_dataset_info: list[str] = arg(
        [], 'dataset_info.json of ms-swift or LLaMA-Factory, whose data sets are listed too', group='list'
    )

    def check(self) -> None:
        super().check()
        if self.custom_register_path is not None:
            register_file(self.custom_register_path)
        for file in self.custom_dataset_info:
            register_dataset_info(file)
