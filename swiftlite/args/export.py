"""``swiftlite export``."""

from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import CheckpointArgs, PromptArgs
from swiftlite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ExportArgs(PromptArgs, CheckpointArgs):
    """Merge a LoRA into its base model."""

    summary: ClassVar[str] = 'Merge a LoRA into its base model and write an ordinary checkpoint.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite export --ckpt_dir output/tiny-chat/v0-…/checkpoint-84 --merge_lora true --verify true',
    )

    merge_lora: bool = arg(
        False,
        'write <ckpt_dir>-merged: base + adapter as one model',
        group='export',
        aliases=('merge_lora_and_save',),
    )
    output_dir: str | None = arg(
        None, 'folder to write', group='export', aliases=('export_dir',), shown='<ckpt_dir>-merged'
    )
    overwrite: bool = arg(
        False, 'replace the folder if it exists', group='export', aliases=('exist_ok', 'replace_if_exists')
    )
    verify: bool = arg(
        False, 'compare the logits of the merged model with base + adapter and print the gap', group='export'
    )

    def check(self) -> None:
        super().check()
        if not self.merge_lora:
            raise UsageError('export has nothing to do: give --merge_lora true')
        if self.ckpt_dir is None:
            raise UsageError('--merge_lora needs --ckpt_dir, the folder of a LoRA checkpoint')
