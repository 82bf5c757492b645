"""``swiftlite sft``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import NumberArgs, PromptArgs, WeightsArgs
from swiftlite.args.training_data import TrainingDataArgs
from swiftlite.args.training_results import ResultArgs
from swiftlite.args.training_scale import ScaleArgs
from swiftlite.args.tuner import TunerArgs
from swiftlite.errors import UsageError

SCHEDULES = ('cosine', 'linear', 'constant', 'constant_with_warmup', 'polynomial', 'cosine_with_restarts')


@dataclass(frozen=True, kw_only=True)
class SftArgs(ResultArgs, ScaleArgs, TunerArgs, TrainingDataArgs, NumberArgs, PromptArgs, WeightsArgs):
    """Fine-tune a model: a LoRA, or all of its weights."""

    summary: ClassVar[str] = 'Fine-tune a model on conversations: a LoRA, or all of its weights.'
    examples: ClassVar[tuple[str, ...]] = (
        "swiftlite sft --model_type tiny-chat --dataset self-cognition --model_name 小黄 'Xiao Huang' "
        '--model_author 魔搭 ModelScope --lora_target_modules ALL --num_train_epochs 6 --learning_rate 2e-3',
        'swiftlite sft --model Qwen/Qwen2.5-7B-Instruct --dataset my.jsonl#1000 --lora_target_modules ALL',
    )

    group_by_length: bool = arg(
        False,
        'batches of rows of similar length, in exchange for less random ones: less padding with --padding_free false',
        group='data',
    )

    packing: bool = arg(
        False,
        'put short rows side by side in packs; no row sees another, and --batch_size counts packs',
        group='data',
        aliases=('neat_packing',),
    )
    packing_length: int | None = arg(None, 'tokens of a pack', group='data', low=1, shown='--max_length')
    padding_free: bool = arg(
        True, 'rows of a batch stand end to end and see only themselves; false: padded to one length', group='data'
    )

    output_dir: str = arg('output', 'folder for the results', group='training')
    add_output_dir_suffix: bool = arg(
        True,
        'write to <output_dir>/<model_type>/vN-date-time, a fresh folder for each run',
        group='training',
        aliases=('add_version',),
    )
    num_train_epochs: float = arg(1, 'passes over the data', group='training', low=0)
    max_steps: int = arg(-1, 'stop after so many steps; -1: after the epochs', group='training', low=-1)
    batch_size: int | None = arg(
        None,
        'rows a step and device',
        group='training',
        aliases=('per_device_train_batch_size',),
        low=1,
        shown='16 rows in all, a few at once',
    )
    eval_batch_size: int | None = arg(
        None,
        'rows a step and device when measuring the held-out loss',
        group='training',
        aliases=('per_device_eval_batch_size',),
        low=1,
        shown='--batch_size',
    )
    gradient_accumulation_steps: int | None = arg(
        None, 'steps before the weights change', group='training', low=1, shown='16 rows in all'
    )
    learning_rate: float = arg(None, 'step size', group='training', low=0, shown='1e-4 for a LoRA, 1e-5 for full')
    weight_decay: float = arg(0.1, 'weight decay of AdamW', group='training', low=0)
    adam_beta1: float = arg(0.9, 'beta1 of AdamW', group='training', low=0, high=0.9999)
    adam_beta2: float = arg(0.95, 'beta2 of AdamW', group='training', low=0, high=0.9999)
    adam_epsilon: float = arg(1e-8, 'epsilon of AdamW', group='training', low=0)
    lr_scheduler_type: str = arg('cosine', f'one of {", ".join(SCHEDULES)}', group='training', choices=SCHEDULES)
    warmup_ratio: float = arg(0.05, 'share of the steps in which the rate rises', group='training', low=0, high=1)
    warmup_steps: int = arg(0, 'the same in steps; above 0 it counts instead', group='training', low=0)
    max_grad_norm: float = arg(1.0, 'gradients are scaled down to this norm', group='training', low=0)
    gradient_checkpointing: bool | None = arg(
        None,
        'compute activations twice to keep fewer; auto: in as few layers as the memory asks for',
        group='training',
        shown='auto',
    )
    use_kernels: bool | None = arg(
        None,
        'norms, rotary, SwiGLU, LoRA layers and the loss in fused kernels, forward and backward',
        group='training',
        aliases=('use_liger', 'use_liger_kernel', 'enable_liger_kernel'),
        shown='on a GPU',
    )
    seed: int = arg(42, 'of every random choice', group='training', low=0, high=2**32 - 1)

    def check(self) -> None:
        super().check()
        if not self.dataset:
            raise UsageError('no data is given: use --dataset with a name or with files (jsonl, json, csv)')
        full = self.sft_type == 'full'
        for name, value in (
            ('learning_rate', 1e-5 if full else 1e-4),
            ('eval_steps', 200 if full else 50),
            ('eval_batch_size', self.batch_size),
            ('dataset_seed', self.seed),
        ):
            self.fill(name, value)
        self.fill('save_steps', self.eval_steps)
        if self.sample_prompts:
            self.fill('sample_steps', self.eval_steps)
        if self.max_steps == 0:
            raise UsageError('--max_steps 0 leaves nothing to do: give more, or -1 for all epochs')
        if self.num_train_epochs == 0 and self.max_steps < 0:
            raise UsageError('--num_train_epochs 0 leaves nothing to do: give more, or --max_steps')
        self._check_shares()
        self._check_packing()
        self._check_streaming()

    def _check_shares(self) -> None:
        """Refuse tuners that need whole weights in each process where they are shared out."""
        deepspeed = self.deepspeed not in (None, 'zero0', 'zero1', 'zero2', 'zero2_offload')
        if self.quantization_bit and (self.fsdp or deepspeed):
            raise UsageError(
                '--quantization_bit 4 needs the whole model in each process: leave out --fsdp and --deepspeed, or '
                'give zero1 or zero2'
            )
        copied = [name for name in ('modules_to_save', 'new_special_tokens') if getattr(self, name)]
        if copied and self.sft_type == 'lora' and (self.fsdp or deepspeed):
            raise UsageError(
                f'--{copied[0]} trains copies of modules beside a LoRA, which are not shared out: leave out --fsdp and '
                '--deepspeed, or give zero1 or zero2'
            )

    def _check_packing(self) -> None:
        if not self.packing:
            if self.packing_length is not None:
                raise UsageError('--packing_length needs --packing true')
            return
        for name, other, why in (
            ('padding_free', False, 'packs have no padding'),
            ('group_by_length', True, 'packs are of one length'),
        ):
            if getattr(self, name) is other:
                raise UsageError(f'--packing true and --{name} {str(other).lower()} exclude each other: {why}')
        if self.packing_length is not None and (self.max_length or 0) > self.packing_length:
            raise UsageError(
                f'--packing_length {self.packing_length} is below --max_length {self.max_length}, and packs hold whole '
                f'rows: give --max_length {self.packing_length}, or packs of {self.max_length}'
            )
        self.fill('packing_length', self.max_length)
        if self.packing_length is None:
            raise UsageError('--packing true with --max_length -1 needs --packing_length, the tokens of a pack')

    def _check_streaming(self) -> None:
        if not self.streaming:
            return
        if self.max_steps < 0:
            raise UsageError('--streaming true needs --max_steps: how long a pass is shows at its end')
        if self.group_by_length:
            raise UsageError(
                '--streaming true and --group_by_length true exclude each other: the lengths of rows show while they '
                'are read'
            )
        for spec in self.dataset:
            source, mark, _ = spec.rpartition('#')
            if mark and source != 'self-cognition' and not Path(spec).is_file():
                raise UsageError(f"--streaming true reads every row: leave out the number of '{spec}'")
        object.__setattr__(self, 'dataset_test_ratio', 0.0)  # what a checkpoint records: nothing is held out
