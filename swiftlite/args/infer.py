"""``swiftlite infer``."""

from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import DataArgs, GenerationArgs, RunArgs
from swiftlite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class InferArgs(GenerationArgs, DataArgs, RunArgs):
    """Chat in the terminal, or answer a data set."""

    summary: ClassVar[str] = 'Chat with a model in the terminal, or answer a whole data set into a file.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite infer --model_type tiny-chat',
        'swiftlite infer --ckpt_dir output/tiny-chat/v0-…/checkpoint-84 --load_dataset_config true',
    )

    load_dataset_config: bool = arg(
        False,
        'answer the held-out rows of the data that --ckpt_dir was trained on',
        group='data',
        aliases=('load_data_args',),
    )
    show_dataset_sample: int = arg(-1, 'rows to answer; -1: all', group='data', aliases=('val_dataset_sample',), low=-1)
    eval_human: bool | None = arg(
        None, 'true: chat in the terminal even with data', group='results', shown='chat when there is no data'
    )
    stream: bool = arg(True, 'print a reply while it is written', group='results')
    save_result: bool = arg(True, 'write the replies to a jsonl file', group='results')
    result_dir: str | None = arg(None, 'folder of that file', group='results', shown='infer_result in the checkpoint')
    result_path: str | None = arg(
        None,
        'that file itself; rows are added to it, and a data set goes on behind the rows that it holds',
        group='results',
    )
    verbose: bool | None = arg(None, 'print every row and its reply', group='results', shown='for up to 20 rows')

    def check(self) -> None:
        super().check()
        self.fill('dataset_seed', self.seed)
        if self.result_path is not None and (self.result_dir is not None or not self.save_result):
            other = '--result_dir' if self.result_dir is not None else '--save_result false'
            raise UsageError(f'--result_path does not go with {other}: give one of them')
        if self.load_dataset_config and self.ckpt_dir is None:
            raise UsageError('--load_dataset_config needs --ckpt_dir, the checkpoint whose data is meant')
