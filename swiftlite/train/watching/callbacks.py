"""What a run tells while it trains: progress on the terminal, logging.jsonl, figures for reports."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swiftlite.train.output import LOG_FILE
from swiftlite.train.scale.ranks import say
from swiftlite.train.watching.reports import Report, figures_of
from swiftlite.train.watching.speed import peak_flops, token_flops, token_length

ROUNDED = {'loss': 6, 'token_acc': 4, 'grad_norm': 4, 'eval_loss': 6, 'eval_token_acc': 4, 'epoch': 4}


class RunLog(TrainerCallback):
    """Progress on the terminal and logging.jsonl in the run's folder.

    Args:
        folder: of the run.
        reports: get the same figures.
        tokens: the trainer, whose `tokens_seen` counts input tokens.
    """

    def __init__(self, folder: Path, trainer: Any, reports: Sequence[Report] = ()):
        self.file = folder / LOG_FILE
        self.trainer, self.reports = trainer, reports
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.task: Any = None
        self.start = self.first_step = 0.0
        self.recent = (0.0, 0)  # time and tokens at the last line
        args, rows = trainer.args, trainer.train_dataset
        lengths = getattr(getattr(rows, 'rows', rows), 'lengths', None)  # of rows, also in packs; a stream has none
        half = torch.float16 if args.fp16 else torch.bfloat16 if args.bf16 else torch.float32
        self.peak = peak_flops(half)  # of one GPU
        self.flops = token_flops(trainer.model, 0 if lengths is None else token_length(lengths)) if self.peak else 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.start, self.first_step = time.time(), state.global_step
        self.recent = (self.start, self.trainer.tokens_seen)
        if state.is_world_process_zero and self.terminal:
            self.bar = progress_bar('{task.fields[info]}')
            self.bar.start()
            self.task = self.bar.add_task('train', total=state.max_steps, completed=state.global_step, info='')

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or not ({'loss', 'eval_loss'} & logs.keys()):
            return
        entry = self.entry(logs, state)
        with self.file.open('a', encoding='utf-8') as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + '\n')
        for report in self.reports:
            report.add(figures_of(entry), state.global_step)
        if self.bar is None:
            self.say(summary_line(entry))
        elif 'loss' in entry:
            self.bar.update(self.task, info=figures(entry))
        else:
            self.say(summary_line(entry))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """A line above the bar, or where there is none."""
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """The run has ended, in whatever way."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        for report in self.reports:
            report.close()
        self.reports = ()

    def entry(self, logs: dict[str, float], state: TrainerState) -> dict[str, Any]:
        """One line of logging.jsonl."""
        now, tokens = time.time(), self.trainer.tokens_seen
        elapsed, done = now - self.start, state.global_step - self.first_step
        speed = done / elapsed if elapsed > 0 else 0.0
        left = (state.max_steps - state.global_step) / speed if speed else 0.0
        entry: dict[str, Any] = {
            name: round(value, ROUNDED[name]) if name in ROUNDED else value for name, value in logs.items()
        }
        entry['global_step/max_steps'] = f'{state.global_step}/{state.max_steps}'
        entry['percentage'] = f'{state.global_step / max(state.max_steps, 1):.2%}'
        entry['elapsed_time'] = duration(elapsed)
        entry['remaining_time'] = duration(left)
        entry['memory(GiB)'] = round(memory_gib(), 2)
        entry['train_speed(iter/s)'] = round(speed, 4)
        if 'loss' in logs:
            world = max(self.trainer.args.world_size, 1)
            speed = (tokens - self.recent[1]) / max(now - self.recent[0], 1e-9)  # of this process
            entry['tokens/s'] = round(speed * world)
            if self.peak:
                entry['mfu'] = round(speed * self.flops / self.peak, 4)
            self.recent = (now, tokens)
        return entry


class EarlyStop(EarlyStoppingCallback):
    """Ends a run whose held-out figure has not become better for a number of times, with a checkpoint."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count on where the checkpoint that training goes on from left off."""
        super().on_train_begin(args, state, control, **kwargs)
        before = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(before, dict) and state.best_metric is not None:
            self.early_stopping_patience_counter = before['attributes']['early_stopping_patience_counter']

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:  # not merely the last step
            control.should_save = True
            say(f'stopped early: no better for {self.early_stopping_patience} times')


def progress_bar(info: str = '') -> Any:
    """A rich progress bar on stderr with time left; `info` is the format of one more column."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    more = [TextColumn(info)] if info else []
    columns = [TextColumn('{task.description}'), BarColumn(20), MofNCompleteColumn(), *more, TimeRemainingColumn()]
    return Progress(*columns, console=Console(stderr=True))


def figures(entry: dict[str, Any]) -> str:
    """Loss, accuracy, rate, gradient, speed and memory of a log line."""
    used = f' ({entry["mfu"]:.0%} MFU)' if 'mfu' in entry else ''
    norm = f'  norm {entry["grad_norm"]:.3g}' if 'grad_norm' in entry else ''
    return (
        f'loss {entry["loss"]:.4f}  acc {entry["token_acc"]:.3f}  lr {entry["learning_rate"]:.3g}{norm}  '
        f'{entry["tokens/s"]:,} tokens/s{used}  {entry["memory(GiB)"]:.1f} GiB'
    )


def summary_line(entry: dict[str, Any]) -> str:
    """A log line where there is no bar."""
    step = entry['global_step/max_steps']
    if 'eval_loss' in entry:
        return f'eval  step {step}  loss {entry["eval_loss"]:.4f}  acc {entry["eval_token_acc"]:.3f}'
    return f'train step {step}  {figures(entry)}  left {entry["remaining_time"]}'


def duration(seconds: float) -> str:
    """'1h 2m 3s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}h {minutes}m {rest}s' if hours else f'{minutes}m {rest}s' if minutes else f'{rest}s'


def memory_gib() -> float:
    """Peak memory of this process in GiB: on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == 'darwin' else 2**20)
