"""Checkpoints of a run: folders that appear whole, and are the same whatever processes wrote them."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import safe_globals

from swiftlite.checkpoint.native import share
from swiftlite.train.model.tuners import rebase, restore
from swiftlite.train.output import PART, STATE_FILE, write_args
from swiftlite.train.rows.stream import EncodedStream
from swiftlite.train.scale.deepspeed import stage_of
from swiftlite.train.scale.ranks import say
from swiftlite.train.scale.sharded import gathered, gathered_optimizer, load_optimizer, load_weights, shares

MASTER = 'master_weights.safetensors'
PROGRESS = 'progress.json'
TORCH_WRITER = ('iostream error', 'PytorchStreamWriter', 'inline_container')  # what its errors speak of


@contextmanager
def torch_files() -> Iterator[None]:
    """Make what torch.save raises where a disk is full (a RuntimeError that does not say so) an OSError."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_WRITER):
            raise
        raise OSError(f'no space left on the device, or a disk that fails ({str(error).splitlines()[0]})') from error


class Checkpoints(Trainer):
    """The part of the trainer that saves and goes on.

    Args:
        tokenizer: saved beside full weights (given as `processing_class` the Trainer would change the model's ids).
        save_dtype: dtype of saved full weights; None when only an adapter is trained. Where it is not fp32 the fp32
            weights are saved too, since training continues from them.
        record: contents of sft_args.json.
    """

    def __init__(
        self,
        *args: Any,
        tokenizer: Any,
        save_dtype: torch.dtype | None = None,
        record: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.tokenizer, self.save_dtype, self.record = tokenizer, save_dtype, record
        self.gone_on_from: Path | None = None
        self.best_anew = False  # the best so far was measured on other rows
        self.add_callback(GoesOn(self))

    def progress(self) -> dict[str, float]:
        """Sums that the next line of the log is made of, of all processes; collective."""
        return {'loss': self._mean(self._tr_loss), 'logged_at': self._globalstep_last_logged,
                'total_loss': self._total_loss_scalar}  # fmt: skip

    def go_on(self, progress: dict[str, float]) -> None:
        """Take up what `progress` gave."""
        self._tr_loss += progress['loss']
        self._globalstep_last_logged = int(progress['logged_at'])
        self._total_loss_scalar = progress['total_loss']

    def mean_loss(self) -> float:
        """Of all steps, those before a checkpoint that was gone on from too; after the training."""
        return self._total_loss_scalar / max(self.state.global_step, 1)

    def _mean(self, value: torch.Tensor) -> float:
        return float(self.accelerator.reduce(value, 'mean') if self.args.world_size > 1 else value)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write into a folder beside, which gets its name in one step: a checkpoint is whole or not there."""
        folder = Path(self.args.output_dir) / f'checkpoint-{self.state.global_step}'
        part = folder.with_name(f'{folder.name}{PART}')
        main, wait = self.args.should_save, self.accelerator.wait_for_everyone
        if main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        wait()
        self.save_model(str(part), _internal_call=True)
        self._note_best(folder)
        if not self.args.save_only_model:
            with torch_files():
                self._save_optimizer_and_scheduler(str(part))
                self._save_scaler(str(part))
                self._save_rng_state(str(part))
            if isinstance(self.train_dataset, EncodedStream):
                self.train_dataset.save(part)  # each process where it is
        progress = self.progress()
        wait()
        if main:
            (part / PROGRESS).write_text(json.dumps(progress) + '\n', encoding='utf-8')
            if self.record is not None:
                write_args(part, self.record)
            self._save_state(part)
            appear(part, folder)
            rotate(folder.parent, self.args.save_total_limit, self.state.best_model_checkpoint)
        wait()

    def _note_best(self, folder: Path) -> None:
        """Of the checkpoints, this one is the best if its figure is; a step that is not saved may have a better one."""
        now, best = self.held_out(folder), self.held_out(self.state.best_model_checkpoint)
        if now is None or (best is not None and (now <= best if self.args.greater_is_better else now >= best)):
            return
        self.state.best_model_checkpoint = str(folder)

    def held_out(self, checkpoint: str | Path | None) -> float | None:
        """The figure that says which checkpoint is best, where it was measured at this one's step."""
        if checkpoint is None or self.args.metric_for_best_model is None:
            return None
        step, name = int(Path(checkpoint).name.rpartition('-')[2]), f'eval_{self.args.metric_for_best_model}'
        return next((x[name] for x in reversed(self.state.log_history) if x['step'] == step and name in x), None)

    def _save_state(self, folder: Path) -> None:
        for callback in (*self.callback_handler.callbacks, self.control):
            if isinstance(callback, ExportableState):
                kept, name = self.state.stateful_callbacks, type(callback).__name__
                if isinstance(kept.get(name), list):
                    kept[name].append(callback.state())
                else:
                    kept[name] = callback.state()
        self.state.save_to_json(str(folder / STATE_FILE))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not self.is_fsdp_enabled:
            if self.is_deepspeed_enabled and stage_of(self.accelerator.deepspeed_plugin.hf_ds_config.config) < 3:
                self._save(output_dir)  # the weights are whole; DeepSpeed's copies of them would untie tied ones
            else:
                super().save_model(output_dir, _internal_call)
            return
        named: Any = self.model.named_parameters(remove_duplicate=False)
        if self.save_dtype is None:
            named = ((name, parameter) for name, parameter in named if parameter.requires_grad)
        self._save(output_dir, gathered(named, self.args.should_save))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        if self.save_dtype is None:
            super()._save(output_dir, state_dict)
            rebase(self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir))
            if (self.record or {}).get('new_special_tokens'):
                self.tokenizer.save_pretrained(output_dir or self.args.output_dir)
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        whole = state_dict or model.state_dict()
        cast: dict[int, torch.Tensor] = {}  # tied weights stay tied
        state = {name: cast.setdefault(x.data_ptr(), x.to(self.save_dtype)) for name, x in whole.items()}
        super()._save(str(folder), state)
        self.tokenizer.save_pretrained(str(folder))
        file = folder / 'config.json'
        config = json.loads(file.read_text(encoding='utf-8'))
        config.pop('torch_dtype', None)
        config['dtype'] = str(self.save_dtype).removeprefix('torch.')
        config['use_cache'] = True  # off while training
        file.write_text(json.dumps(config, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')
        if self.save_dtype != torch.float32 and not self.args.save_only_model and not self.is_deepspeed_enabled:
            named = [name for name, _ in model.named_parameters()]
            save_file({name: whole[name].detach().contiguous() for name in named}, str(folder / MASTER))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered_optimizer(self.optimizer, self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / 'optimizer.pt')
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / 'scheduler.pt')

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        network = self.accelerator.unwrap_model(self.model)
        if hasattr(network, 'adapter_start'):
            if not (self.is_fsdp_enabled and self.is_in_train):  # done while the weights were whole
                restore(network, folder)
            return
        parameters: Any = dict(network.named_parameters())
        if isinstance(network, PeftModel):
            # the names of the file, for the parameters themselves; one that two layers share has a name in each
            parameters = dict(network.named_parameters(remove_duplicate=False))
            parameters = get_peft_model_state_dict(network, state_dict=parameters)
        kept = [folder / MASTER] if (folder / MASTER).is_file() else sorted(folder.glob('*model*.safetensors'))
        load_weights(parameters, kept)

    def take_weights(self, checkpoint: Path) -> None:
        """Start from the weights of a checkpoint, and from nothing else of it."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.gone_on_from = Path(checkpoint)
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            load_optimizer(self.optimizer, read_state(Path(checkpoint) / 'optimizer.pt', mmap=True))
            self.lr_scheduler.load_state_dict(read_state(Path(checkpoint) / 'scheduler.pt'))
        if checkpoint is not None and isinstance(self.lr_scheduler, LambdaLR):
            renew_rates(self.lr_scheduler)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None:  # the checkpoint may be of fp16, and this run of another dtype
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random numbers go on where this process left off, those of a GPU where it had one."""
        index = self.args.process_index
        name = f'rng_state_{index}.pth' if self.args.world_size > 1 else 'rng_state.pth'
        if checkpoint is None or not (Path(checkpoint) / name).is_file():
            return
        states = read_state(Path(checkpoint) / name)
        random.setstate(states['python'])
        np.random.set_state(states['numpy'])
        torch.random.set_rng_state(states['cpu'])
        on_gpu = gpu_state(states.get('cuda'), index)
        if on_gpu is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(on_gpu)


def read_state(file: Path, mmap: bool = False) -> Any:
    """What torch.save wrote, in the CPU's memory: the device it was on may not be there."""
    with safe_globals():
        return torch.load(file, map_location='cpu', weights_only=True, mmap=mmap)


def gpu_state(states: Any, index: int) -> torch.Tensor | None:
    """Of a process's GPU, where one of several processes wrote the states of all GPUs of its machine."""
    if isinstance(states, list | tuple):
        return states[index % len(states)] if states else None
    return states


def renew_rates(schedule: LambdaLR) -> None:
    """The next step's rates by this run's schedule: by that of the checkpoint they may be 0, at its end."""
    rates = [
        base * factor(schedule.last_epoch) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group['lr'] = rate
    schedule._last_lr = rates


class GoesOn(TrainerCallback):
    """Random numbers differ between processes; what the log had summed up is taken up again."""

    def __init__(self, trainer: Checkpoints):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(
            args, state.max_steps
        )  # of these arguments, not of those that the checkpoint was written by
        if self.trainer.best_anew:
            state.best_model_checkpoint = state.best_metric = None
        if self.trainer.is_fsdp_enabled:
            say(shares(self.trainer.model))
        if args.world_size > 1:
            set_seed(args.seed + args.process_index)
        folder = self.trainer.gone_on_from
        if folder is not None and (folder / PROGRESS).is_file():
            self.trainer.go_on(json.loads((folder / PROGRESS).read_text(encoding='utf-8')))


def appear(part: Path, folder: Path) -> None:
    """Give a folder that is complete on disk its name; one that had the name is gone."""
    for file in part.rglob('*'):
        if file.is_file():
            if file.suffix == '.safetensors':
                share(file)
            with file.open('rb') as stream:
                os.fsync(stream.fileno())
    if folder.is_dir():
        old = folder.with_name(f'{folder.name}.old{PART}')
        folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        part.rename(folder)


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `limit` are left; the best and the newest stay."""
    found = sorted(folder.glob('checkpoint-*'), key=lambda path: path.name)
    numbers = {int(path.name.split('-')[1]): path for path in found if path.name.split('-')[1].isdigit()}
    kept = {max(numbers, default=0), *(n for n, path in numbers.items() if best and path == Path(best))}
    for number in sorted(numbers.keys() - kept):
        if limit is None or len(numbers) <= limit:
            return
        shutil.rmtree(numbers.pop(number), ignore_errors=True)
