"""Before the first step: which activations are computed again, and whether the largest pass there will be fits."""

import gc
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swiftlite.args.sft import SftArgs
from swiftlite.train.rows.packing import Rows
from swiftlite.train.rows.stream import EncodedStream
from swiftlite.train.scale.deepspeed import spread
from swiftlite.train.scale.memory import (
    available_memory,
    decoder_layers,
    estimate,
    forget_peak,
    gpu_errors,
    most_tokens_of_a_pass,
    peak_memory,
    size,
)
from swiftlite.train.scale.ranks import say
from swiftlite.train.settings import PASS_TOKENS, Schedule

ALONE = (DistributedType.NO, DistributedType.MULTI_GPU)  # a process can run the model without the others


class Rehearsal(TrainerCallback):
    """Runs the largest pass of the data once before the training, so that memory that does not suffice shows at once.

    Where --gradient_checkpointing leaves the choice, as few layers are computed again as the estimate says; if that
    does not fit after all, more are. `needs` is the estimate for the layers that are computed again now.
    """

    def __init__(self, trainer: Any, args: SftArgs, schedule: Schedule, dtype: torch.dtype):
        self.trainer, self.schedule = trainer, schedule
        data = trainer.train_dataset
        self.rows: Rows = data.largest(schedule.batch_size) if isinstance(data, EncodedStream) else data
        self.automatic = args.gradient_checkpointing is None
        self.padding_free = args.padding_free
        self.device = trainer.args.device
        self.collator = trainer.data_collator
        model = trainer.model
        shards = trainer.args.world_size if trainer.is_fsdp_enabled else 1
        needs = estimate(model, self._tokens(), dtype, shards)
        if trainer.is_deepspeed_enabled:
            config = trainer.accelerator.deepspeed_plugin.hf_ds_config.config
            needs = spread(needs, model, config, dtype, trainer.args.world_size)
        elif trainer.args.world_size > 1 and shards == 1:
            needs = replace(needs, gradients=2 * needs.gradients)  # those on their way to the other processes
        self.available = self._least(available_memory(self.device))
        self.available += needs.weights if self.device.type == 'cpu' else 0
        if args.gradient_checkpointing is not None:
            self.needs = replace(needs, recomputed=needs.layers if args.gradient_checkpointing else 0)
        else:
            self.needs = needs.fitting(self.available)
            while self.needs.recomputed and args.batch_size is None and self._halve_passes():
                self.needs = replace(needs, tokens=self._tokens()).fitting(self.available)
        recompute(model, self.needs.recomputed)
        say(self.line())

    def line(self) -> str:
        """What is printed before training."""
        count, layers = self.needs.recomputed, self.needs.layers
        again = f'{count} of {layers} layers are computed twice' if count else 'nothing is computed twice'
        return f'memory: {self.needs.parts()} = {size(self.needs.total)} of {size(self.available)}; {again}'

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises torch.OutOfMemoryError where the largest pass fits in no way that is left to choose."""
        if self.device.type == 'cuda' and self.trainer.accelerator.distributed_type in ALONE:
            self.rehearse()

    def rehearse(self) -> None:
        """Run the largest pass and forget what came of it; raises torch.OutOfMemoryError as said above."""
        while (peak := self._run()) is None:
            gc.collect()
            torch.cuda.empty_cache()
            count, layers = self.needs.recomputed, self.needs.layers
            if not self.automatic or count == layers:
                raise torch.OutOfMemoryError('the largest pass does not fit')
            self.needs = replace(self.needs, recomputed=min(count + max(layers // 4, 1), layers))
            recompute(self.trainer.model, self.needs.recomputed)
        say(f'largest pass: {size(peak)} at its peak, {self.needs.recomputed} of {self.needs.layers} layers twice')

    def _run(self) -> int | None:
        """Bytes at the peak of the largest pass, with the optimizer's state; None where they do not suffice."""
        trainer = self.trainer
        counts = trainer._correct, trainer._trained
        forget_peak(self.device)
        try:
            with gpu_errors(), torch.random.fork_rng([self.device] if self.device.type == 'cuda' else []):
                trainer.model.train()
                trainer.compute_loss(trainer.model, trainer._prepare_inputs(self.largest_pass())).backward()
            peak = peak_memory(self.device)
        except torch.OutOfMemoryError:
            return None
        finally:
            trainer.model.zero_grad(set_to_none=True)
            trainer._correct, trainer._trained = counts
            forget_peak(self.device)
        peak += 0 if trainer.optimizer.state else self.needs.optimizer
        return peak if peak <= self.available else None

    def largest_pass(self) -> dict[str, Any]:
        """Of the longest rows."""
        longest = np.argsort(-self.rows.lengths, kind='stable')[: self.schedule.batch_size]
        passes = self.collator([self.rows[int(i)] for i in longest])['passes']
        return max(passes, key=lambda part: part['input_ids'].numel())

    def advice(self, step: int, args: SftArgs) -> str:
        """What an error of missing memory says."""
        needs, batch = self.needs, self.schedule.batch_size
        more = ', or add --gradient_checkpointing true' if needs.recomputed < needs.layers else ''
        more += ''.join(f', or {way}' for way in smaller(args))
        room = replace(needs, recomputed=needs.layers).most_tokens(self.available)
        fits = f'about {room:,} tokens a pass fit' if room else 'the model alone does not fit'
        return (
            f'out of GPU memory at step {step}: lower --batch_size (now {batch}) or --max_length (now '
            f'{args.max_length}){more}. Estimated: {needs.parts()} = {size(needs.total)} of {size(self.available)}, '
            f'{needs.recomputed} of {needs.layers} layers computed twice; with all of them {fits}'
        )

    def _least(self, room: int) -> int:
        """Of all processes, so that they choose alike: they meet in every layer where weights are shared out."""
        if self.trainer.args.world_size == 1:
            return room
        rooms = self.trainer.accelerator.gather(torch.tensor([room], device=self.device))
        return int(rooms.min())

    def _tokens(self) -> int:
        lengths, budget = self.rows.lengths, self.collator.budget
        return most_tokens_of_a_pass(lengths, self.schedule.batch_size, budget, self.padding_free)

    def _halve_passes(self) -> bool:
        """Smaller passes, where they may be: more of them give the same gradient."""
        if self.collator.budget is None or self.collator.budget // 2 < PASS_TOKENS:
            return False
        before = self._tokens()
        self.collator.budget //= 2
        return self._tokens() < before


def recompute(model: nn.Module, count: int) -> None:
    """Of the first `count` layers keep only what enters them, and compute the rest again in the backward pass.

    The last layers are the first that the backward pass is done with: what they keep is gone before the others work.
    (Chen et al., Training deep nets with sublinear memory cost, arXiv 1604.06174)
    """
    random = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    random = random or bool(getattr(model.config, 'attention_dropout', 0))
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=random, determinism_check='none')
    for index, layer in enumerate(decoder_layers(model)):
        layer.gradient_checkpointing = index < count
        layer._gradient_checkpointing_func = again


def smaller(args: SftArgs) -> list[str]:
    """Ways to a model that takes less memory on a device."""
    ways = []
    if args.alters_base():
        ways.append('start the adapter without a factorisation (--init_lora_weights true)')
    if args.sft_type == 'full':
        ways.append('train a LoRA (--sft_type lora)')
    elif not args.quantization_bit:
        ways.append('keep the base in 4 bits (--quantization_bit 4)')
    if not args.fsdp and not args.deepspeed and not args.quantization_bit:
        ways.append('share the weights out to several GPUs (NPROC_PER_NODE and --fsdp full_shard)')
    return ways


def too_large(model: nn.Module | None, args: SftArgs) -> str:
    """What an error says where not even the weights fit; None: they were still being read, or made an adapter of."""
    ways = ', or '.join([*smaller(args), 'take a smaller model, or a GPU that nothing else uses'])
    if model is None:
        return f'out of GPU memory while the model is made ready: {ways}'
    weights = size(sum(p.numel() * p.element_size() for p in model.parameters()))
    return f'out of GPU memory: the weights alone are {weights}: {ways}'
