"""``swiftlite eval``."""

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import DataArgs, GenerationArgs, RunArgs
from swiftlite.errors import UsageError

# what a server at --eval_url is told, beside how answers are drawn
SENT = ('model_type', 'model_id_or_path', 'system', 'seed', 'custom_register_path')
METRICS = ('accuracy', 'exact_match', 'rouge_l', 'bleu_4', 'perplexity', 'token_accuracy')


@dataclass(frozen=True, kw_only=True)
class EvalArgs(GenerationArgs, DataArgs, RunArgs):
    """Measure a model's answers to data whose answers are known."""

    summary: ClassVar[str] = 'Measure a model, an adapter or a server on data: accuracy, ROUGE-L, BLEU-4, perplexity.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite eval --model_type tiny-chat --eval_dataset questions.jsonl',
        'swiftlite eval --ckpt_dir output/tiny-chat/v0-…/checkpoint-84 --load_dataset_config true',
        'swiftlite eval --eval_url http://127.0.0.1:8000/v1 --eval_dataset questions.jsonl --eval_limit 100',
    )

    eval_dataset: list[str] = arg(
        [], "files (jsonl, json, csv) and data sets; all of their rows, or N with '#N'", group='data', split=','
    )
    custom_eval_config: str | None = arg(
        None,
        'json file: a list of {"name", "pattern": "general_qa" or "ceval", "dataset": file or folder}',
        group='data',
    )
    load_dataset_config: bool = arg(
        False,
        'measure on the held-out rows of the data that --ckpt_dir was trained on',
        group='data',
        aliases=('load_data_args',),
    )
    eval_limit: int | None = arg(None, 'first rows of each data set', group='data', low=1, shown='all')
    eval_metrics: list[str] = arg(
        [],
        f'what to measure: {", ".join(METRICS)}',
        group='evaluation',
        choices=METRICS,
        split=',',
        shown='all that fit the rows; of a server, those of its answers',
    )
    eval_url: str | None = arg(
        None,
        "OpenAI's API of a server to ask, such as http://127.0.0.1:8000/v1; --model_type names its model",
        group='evaluation',
    )
    eval_token: str = arg('EMPTY', 'bearer token for that server', group='evaluation')
    eval_is_chat_model: bool | None = arg(None, 'false: the server completes texts', group='evaluation', shown='true')
    eval_batch_size: int | None = arg(
        None,
        'rows that are asked at once',
        group='evaluation',
        low=1,
        shown='8 of a server, else what fits',
    )
    eval_use_cache: bool | None = arg(
        None,
        'true: rows of an equal run that is finished are reused; false: those of an unfinished one are not either',
        group='evaluation',
        shown='those of an unfinished one',
    )
    eval_output_dir: str = arg('eval_outputs', 'folder for rows and reports', group='results')
    eval_name: str | None = arg(None, 'name of this run in it', group='results', aliases=('name',), shown="the model's")

    def check(self) -> None:
        super().check()
        self.fill('dataset_seed', self.seed)
        if self.temperature is None:
            self.fill('do_sample', False)
        if self.load_dataset_config and self.ckpt_dir is None:
            raise UsageError('--load_dataset_config needs --ckpt_dir, the checkpoint whose data is meant')
        given = self.eval_dataset or self.custom_eval_config or self.val_dataset or self.dataset
        if not given and not self.load_dataset_config:
            raise UsageError('no data is given: use --eval_dataset with files (jsonl, json, csv)')
        if self.eval_url is None:
            if self.eval_is_chat_model is not None:
                raise UsageError('--eval_is_chat_model is about the server at --eval_url, and none is given')
            return
        if self.lora_modules:
            raise UsageError("--lora_modules does not go with --eval_url: name the server's adapter with --model")
        here = [f.name for f in fields(self) if f.metadata['group'] in ('model', 'adapters', 'engine')]
        if local := self.changed(name for name in here if name not in SENT):
            raise UsageError(f'--{local} does not go with --eval_url, where the server holds the model: give one')
        if not re.match(r'https?://[^/:]', self.eval_url):
            raise UsageError(f"--eval_url is an address such as http://127.0.0.1:8000/v1, not '{self.eval_url}'")
