"""``swiftlite bench train``: the flags of ``sft``, and what is measured."""

from dataclasses import dataclass, fields
from typing import ClassVar

from swiftlite.args.bench_requests import PRESETS, check_file
from swiftlite.args.fields import arg
from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError, nearest

CHAT = 'chat'
FILLED = ('eval_steps', 'save_steps', 'sample_steps', 'eval_batch_size', 'greater_is_better')  # from others
# flags of sft that have no part in a measurement: nothing is held out, written or gone on from
# tuners that have no like in transformers and peft alone
OURS = (
    *('modules_to_save', 'init_lora_weights', 'lora_lr_ratio', 'neftune_noise_alpha'),
    *('freeze_parameters', 'freeze_parameters_ratio'),
)
UNREAD = (
    'val_dataset',
    'streaming',
    'dump_prompt',
    'new_special_tokens',
    'dataset_test_ratio',
    'output_dir',
    'add_output_dir_suffix',
    'num_train_epochs',
    'max_steps',
    'eval_batch_size',
    'dump_prompt',
)


@dataclass(frozen=True, kw_only=True)
class TrainBenchArgs(SftArgs):
    """Measure the training step."""

    summary: ClassVar[str] = "Measure the training step of 'sft', beside transformers and peft on the same rows."
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite bench train --model_type tiny-chat --row_length 64 --num_steps 5 --learning_rate 1e-3',
        'swiftlite bench train --config_preset qwen2.5-7b --lora_target_modules ALL --lora_dropout 0 '
        '--vary gradient_checkpointing --output 7b.jsonl --plot 7b.png',
        'swiftlite bench train --config_preset qwen2.5-0.5b --row_length chat --batch_size 16 --vary packing',
    )

    config_preset: str | None = arg(
        None,
        f'in place of a model: the shape of one ({", ".join(PRESETS)}) with random weights',
        group='model',
        aliases=('preset',),
        choices=PRESETS,
    )
    row_length: str = arg(
        '2048',
        'rows without --dataset: random tokens, so many in each; chat: as many as in conversations (docs/bench.md)',
        group='benchmark',
    )
    num_steps: int = arg(10, 'steps that are measured', group='benchmark', aliases=('steps',), low=1)
    num_warmups: int = arg(3, 'steps before them that are not timed', group='benchmark', low=1)
    against: list[str] = arg(
        ['transformers'],
        'transformers: its Trainer with peft, on the same rows, weights and seeds; none',
        group='benchmark',
        choices=('transformers', 'none'),
    )
    vary: list[str] = arg(
        [],
        'switches that are measured both ways, such as gradient_checkpointing, packing or padding_free',
        group='benchmark',
        split=',',
    )
    ceilings: bool = arg(
        True, 'measure what the device can do, copy and matrix product, in the same run', group='benchmark'
    )
    output: str | None = arg(
        None, 'file for the numbers, a JSON object a line', group='benchmark', aliases=('result_filename',)
    )
    plot: str | None = arg(None, 'png file for the loss curves; needs matplotlib', group='benchmark')

    def check(self) -> None:
        given = self.dataset
        if not given:
            object.__setattr__(self, 'dataset', ['random rows'])  # sft asks for some
        self.fill('batch_size', 4)
        self.fill('gradient_accumulation_steps', 1)
        super().check()
        object.__setattr__(self, 'dataset', given)
        for f in fields(SftArgs):
            unread = f.name in UNREAD or (f.metadata and f.metadata['group'] == 'results')
            if unread and f.name not in FILLED and self.changed([f.name]):
                raise UsageError(
                    f"--{f.name} is a flag of 'swiftlite sft': nothing is held out or kept by 'bench train'"
                )
        if name := self.changed(OURS):
            raise UsageError(
                f"--{name} is a flag of 'swiftlite sft': what is compared here is LoRA, rsLoRA, DoRA, QLoRA or full"
            )
        if self.config_preset is not None and (self.model_type or self.model_id_or_path):
            raise UsageError('--config_preset stands in place of a model: leave out one of them')
        if self.config_preset is not None and given:
            raise UsageError('--config_preset has no tokenizer for --dataset: leave it out, and give --row_length')
        if (self.fsdp or self.deepspeed) and 'transformers' in self.against:
            raise UsageError('weights that are shared out are measured by themselves: give --against none')
        self.length()
        switches = [f.name for f in fields(SftArgs) if f.metadata and 'bool' in str(f.type)]
        for name in self.vary:
            if name not in switches:
                raise UsageError(f"--vary takes switches of sft, not '{name}'{nearest(name, switches)}")
        for name, kind in (('output', 'json'), ('plot', 'png')):
            check_file(name, getattr(self, name), kind)

    def training(self, **switches: bool) -> SftArgs:
        """The flags of `sft` that a case is trained with."""
        given = {f.name: getattr(self, f.name) for f in fields(SftArgs)}
        given |= {'dataset': self.dataset or ['random rows'], 'max_steps': self.num_warmups + self.num_steps}
        return SftArgs(**given | switches)

    def length(self) -> int | None:
        """Tokens of a random row, None for those of conversations."""
        if self.row_length == CHAT:
            return None
        if not self.row_length.isdigit() or int(self.row_length) < 2:
            raise UsageError(f"--row_length takes a number from 2, or chat, not '{self.row_length}'")
        return int(self.row_length)
