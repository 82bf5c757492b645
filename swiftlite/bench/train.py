"""`swiftlite bench train`: tokens per second, memory and losses of a training step, beside transformers and peft."""

from __future__ import annotations

import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from ..args.bench_train import SftArgs, TrainBenchArgs
from ..checkpoint import load_tokenizer, native_checkpoint, raw_config
from ..errors import UsageError
from ..hub import local_path
from ..registry.resolve import complete
from ..train.model.make import (
    LARGE,
    load_model,
    make_model,
    parameter_counts,
    ready,
    recompute_activations,
    resolve_dtype,
)
from ..train.model.quantized import quantization
from ..train.model.targets import lora_targets
from ..train.rows.collate import BatchSampler
from ..train.rows.encoded import EncodedRows
from ..train.rows.packing import Rows, pack
from ..train.scale.ranks import is_main, pick_device, world_size
from ..train.settings import make_schedule, training_arguments
from ..train.setup import make_trainer
from ..train.watching.speed import peak_flops, token_flops, token_length
from . import train_report
from .ceilings import measure
from .facts import device_name, facts
from .presets import write_preset
from .report import Lines
from .train_plain import Plain, adapted
from .train_rows import random_rows


@dataclass
class Case:
    """One way to train, and what came of it; nothing measured where memory did not suffice."""

    engine: str
    switches: dict[str, bool]
    args: SftArgs
    warmups: int
    seconds: float = 0.0
    tokens: int = 0  # real ones, in the steps that are timed
    losses: list[float] = field(default_factory=list)  # of every step, warm-ups too
    peak_gib: float | None = None  # allocated
    reserved_gib: float | None = None
    mfu: float | None = None
    failed: str | None = None


@dataclass
class Model:
    """What is trained: a folder, with weights or only a shape."""

    name: str
    folder: str
    weights: bool
    dtype: torch.dtype
    targets: list[str]

    def load(self, path: str, dtype: torch.dtype, **options: Any) -> Any:
        """The network that `sft` would train; the same weights at every call. `options` are from_pretrained's."""
        with self.files(path, dtype, options) as files:
            model = load_model(files, dtype, **options) if files else ready(self.random(path, dtype))
        torch.manual_seed(0)  # for adapters
        return model

    def plain(self, full: bool, **options: Any) -> Any:
        """The same network as transformers builds it."""
        dtype, path = torch.float32 if full else self.dtype, native_checkpoint(self.folder)
        with self.files(path, dtype, options) as files:
            if files:
                model = transformers.AutoModelForCausalLM.from_pretrained(files, dtype=dtype, **options)
            else:
                model = self.random(path, dtype)
        torch.manual_seed(0)
        return model

    @contextmanager
    def files(self, path: str, dtype: torch.dtype, options: Any) -> Iterator[str | None]:
        """A folder to read weights from; None where they need no files: 4 bits are made while files are read."""
        if self.weights or not options:
            yield path if self.weights else None
            return
        with tempfile.TemporaryDirectory(prefix='swiftlite-bench-') as folder:
            self.random(path, dtype).save_pretrained(folder)
            yield folder

    def random(self, path: str, dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        config = transformers.AutoConfig.from_pretrained(path)
        with torch.device(device()):
            return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


class Clock(TrainerCallback):
    """Times the steps after the warm-ups; nothing is written or logged meanwhile."""

    def __init__(self, warmups: int):
        self.warmups, self.start, self.seconds, self.tokens = warmups, 0.0, 0.0, 0
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # how the model came to the GPU does not count

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = control.should_save = control.should_evaluate = False
        if state.global_step in (self.warmups, state.max_steps):
            seen = self.trainer.all_tokens_seen() if hasattr(self.trainer, 'all_tokens_seen') else 0
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.start, self.seconds, self.tokens = now, now - self.start, seen - self.tokens


def run(args: TrainBenchArgs) -> int:
    """Measure, print a table and JSON lines; returns the exit status, 130 after Ctrl-C."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pick_device(args)
    if args.plot:
        train_report.check_plot()
    status, measured = 0, []
    with model_of(args) as model, tempfile.TemporaryDirectory(prefix='swiftlite-bench-') as folder:
        rows = rows_of(args, model)
        lines = Lines(args.output) if is_main() else None
        if is_main():
            print(train_report.describe(args, model.name, rows.lengths, device_name(device())), flush=True)
        for case in cases(args):
            try:
                measure_case(case, model, rows, Path(folder))
            except KeyboardInterrupt:
                print('stopped: these are the measurements that were finished', file=sys.stderr)
                status = 130
                break
            measured.append(case)
            if is_main():
                print(train_report.said(case), flush=True)
        ceilings = measure(device(), model.dtype) if args.ceilings and is_main() and not status else None
    if is_main() and lines is not None:
        shared = {'model': model.name, 'dtype': str(model.dtype).removeprefix('torch.'), 'world_size': world_size()}
        shared |= {'row_length': args.row_length, 'dataset': args.dataset, 'seed': args.seed}
        shared |= {'device': device_name(device()), 'command': ' '.join(['swiftlite', *sys.argv[1:]])} | facts()
        if ceilings is not None:
            shared['ceilings'] = ceilings.numbers()
            print(f'{device_name(device())}: {ceilings}')
        results = [train_report.result(case, measured) for case in measured]
        train_report.table(results)
        for result in results:
            lines.add(result | shared)
        if args.plot:
            train_report.plot(args.plot, measured)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return status


@contextmanager
def model_of(args: TrainBenchArgs) -> Iterator[Model]:
    """The model that the arguments name; a preset's folder is gone afterwards."""
    dtype = resolve_dtype(args.dtype)
    with tempfile.TemporaryDirectory(prefix='swiftlite-bench-') as folder:
        if args.config_preset is not None:
            path, name, weights = str(write_preset(args.config_preset, Path(folder), False)), args.config_preset, False
        else:
            source = args.source()
            path, name, weights = local_path(source.model_id_or_path, source.revision), source.name, True
        yield Model(name, path, weights, dtype, lora_targets(args, path))


def rows_of(args: TrainBenchArgs, model: Model) -> EncodedRows:
    """The rows of --dataset as `sft` encodes them, or random ones: enough for all steps."""
    config = raw_config(model.folder)
    limit = config.get('max_position_embeddings') or sys.maxsize
    length = args.length()
    if args.dataset:
        return encoded(args, model.folder)
    if length and length > limit:
        raise UsageError(f'--row_length {length} is longer than the {limit} tokens of {model.name}')
    if length and args.max_length and length > args.max_length:
        raise UsageError(f'--row_length {length} is longer than --max_length {args.max_length}')
    limit = min(limit, args.max_length or limit)
    count = (args.num_steps + args.num_warmups) * args.batch_size * args.gradient_accumulation_steps * world_size()  # type: ignore[operator]
    if args.packing or 'packing' in args.vary:
        count *= 1 + (args.max_length or 2048) // (length or 256)
    return random_rows(count, length, limit, config['vocab_size'], args.seed)


def encoded(args: TrainBenchArgs, folder: str) -> EncodedRows:
    """The rows of --dataset, all of them to train on."""
    from ..template import get_template
    from ..train.rows.data import training_data

    source = complete(args.source(), folder)
    template = get_template(args.template_type or source.template, load_tokenizer(folder), **args.template_options())
    return training_data(replace(args.training(), dataset_test_ratio=0.0), template, folder)[0]


def cases(args: TrainBenchArgs) -> list[Case]:
    """transformers first, before anything of ours is installed; ours with every combination of --vary."""
    against = [name for name in args.against if name != 'none']
    names = list(dict.fromkeys(args.vary))
    found = []
    for engine in (*against, 'swiftlite'):
        own = names if engine == 'swiftlite' else [name for name in names if name == 'gradient_checkpointing']
        for values in itertools.product((True, False), repeat=len(own)):
            switches = dict(zip(own, values, strict=True))
            try:
                found.append(Case(engine, switches, args.training(**switches), args.num_warmups))
            except UsageError as error:  # combinations that sft refuses, too
                if not own:
                    raise
                if is_main():
                    print(f'left out {switches}: {error}')
    return found


def measure_case(case: Case, model: Model, rows: EncodedRows, folder: Path) -> None:
    """Fill in what is measured."""
    free()
    clock = Clock(case.warmups)
    try:
        build = ours if case.engine == 'swiftlite' else theirs
        trainer, tokens = build(case, model, rows, folder)
        clock.trainer = trainer
        trainer.pop_callback(transformers.PrinterCallback)
        trainer.add_callback(clock)
        steps = recorded(trainer)
        flops = token_flops(trainer.model, token_length(rows.lengths))
        trainer.train()
    except torch.OutOfMemoryError:
        case.failed = 'out of memory'
        return
    finally:
        trainer = None
        free()
    case.seconds, case.tokens = clock.seconds, tokens or clock.tokens
    case.losses = steps()
    if torch.cuda.is_available():
        case.peak_gib = torch.cuda.max_memory_allocated() / 2**30
        case.reserved_gib = torch.cuda.max_memory_reserved() / 2**30
    if peak := peak_flops(model.dtype):
        case.mfu = case.tokens / case.seconds * flops / peak / world_size()


def ours(case: Case, model: Model, rows: EncodedRows, folder: Path) -> tuple[Any, int]:
    """(the trainer that `sft` would run, 0: it counts its tokens itself)."""
    args = case.args
    data: Rows = pack(args, rows, None)[0] if args.packing else rows
    schedule = make_schedule(args, len(data), int(data.lengths.max()))
    network, save_dtype = make_model(args, model.folder, model.dtype, model.targets, model.load)
    return make_trainer(args, network, None, schedule, model.dtype, save_dtype, folder, data), 0


def theirs(case: Case, model: Model, rows: EncodedRows, folder: Path) -> tuple[Any, int]:
    """(transformers' trainer on the same rows, tokens in the timed steps)."""
    args, full = case.args, case.args.sft_type == 'full'
    schedule = make_schedule(args, len(rows), int(rows.lengths.max()))
    network = model.plain(full, **quantization(args, model.dtype))
    if not full:
        options = {'r': args.lora_rank, 'lora_alpha': args.lora_alpha, 'lora_dropout': args.lora_dropout}
        options |= {'use_rslora': args.use_rslora, 'use_dora': args.use_dora}
        network = adapted(network, {**options, 'target_modules': model.targets})
    wanted = args.gradient_checkpointing
    if wanted or (wanted is None and torch.cuda.is_available() and parameter_counts(network)[1] >= LARGE):
        recompute_activations(network)
    arguments = training_arguments(args, folder, schedule, model.dtype, False)
    batch, epochs = schedule.batch_size * schedule.accumulation * world_size(), itertools.count()
    order: list[int] = []
    while len(order) < args.max_steps * batch:
        epoch = next(epochs)
        order += list(BatchSampler(rows.lengths, batch, arguments.data_seed, lambda e=epoch: e))  # type: ignore[misc]
    timed = order[case.warmups * batch : args.max_steps * batch]
    return Plain(network, arguments, rows, order), int(rows.lengths[timed].sum())


def recorded(trainer: Any) -> Any:
    """Wrap training_step; the function returned gives the loss of each step afterwards."""
    step, parts = trainer.training_step, trainer.args.gradient_accumulation_steps
    losses: list[torch.Tensor] = []

    def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = step(*args, **kwargs)
        losses.append(loss.detach())
        return loss

    def found() -> list[float]:
        each = torch.stack(losses).float()
        if world_size() > 1:
            torch.distributed.all_reduce(each)
            each /= world_size()
        return each.reshape(-1, parts).sum(1).tolist()

    trainer.training_step = training_step
    return found


def device() -> str:
    return f'cuda:{torch.cuda.current_device()}' if torch.cuda.is_available() else 'cpu'


def free() -> None:
    """Give back the memory that nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
