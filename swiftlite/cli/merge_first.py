"""``--merge_lora true`` of infer and deploy: the merged checkpoint takes the place of the LoRA."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from swiftlite.args.groups import RunArgs
from swiftlite.registry.resolve import read_checkpoint_args

T = TypeVar('T', bound=RunArgs)


def merge_first(args: T) -> T:
    """`args` with --ckpt_dir merged and pointing at the result; `args` itself where no merge is wanted.

    What an earlier merge wrote is made anew, never reused; a folder of any other origin is not replaced.
    """
    if not args.merge_lora:
        return args
    from swiftlite.args.export import ExportArgs
    from swiftlite.export import merge

    earlier = 'merged_from' in read_checkpoint_args(f'{Path(str(args.ckpt_dir))}-merged')
    export = ExportArgs(
        ckpt_dir=args.ckpt_dir,
        model_type=args.model_type,
        model_id_or_path=args.model_id_or_path,
        model_revision=args.model_revision,
        template_type=args.template_type,
        system=args.system,
        merge_lora=True,
        overwrite=earlier,
    )
    merged = merge.run(export)
    return replace(args, ckpt_dir=merged, model_type=None, model_id_or_path=None, merge_lora=False)
