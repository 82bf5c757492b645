"""The processes of a run: who speaks, and what all of them must agree on."""

import os
from pathlib import Path

import torch

from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError
from swiftlite.registry.resolve import ModelSource
from swiftlite.train.output import run_folder


def world_size() -> int:
    """Processes of this run."""
    return int(os.environ.get('WORLD_SIZE', 1))


def processes_here() -> int:
    """Of this run on this machine."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1))


def rank() -> int:
    """Number of this process."""
    return int(os.environ.get('RANK', 0))


def pick_device(args: SftArgs) -> None:
    """Let this process use its own GPU before anything is put on one.

    Raises:
        UsageError: --fsdp offload without a GPU, fewer GPUs than processes, or several processes nobody started.
    """
    if world_size() > 1 and 'LOCAL_RANK' not in os.environ:
        raise UsageError(
            f'the environment variable WORLD_SIZE is {world_size()}, but this is no process of several: set '
            'NPROC_PER_NODE and NNODES to start them, or unset WORLD_SIZE'
        )
    if not torch.cuda.is_available():
        if 'offload' in args.fsdp:
            raise UsageError("--fsdp offload moves weights from GPUs to the CPU's memory, and there is no GPU")
        return
    if world_size() > 1:
        own, count = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
        if (several := max(processes_here(), own + 1)) > count:
            raise UsageError(f'{several} processes need a GPU each: set NPROC_PER_NODE={count}, or show them more GPUs')
        torch.cuda.set_device(own)
    if 'offload' in args.fsdp:  # accelerate then lets processes exchange tensors on the CPU too
        os.environ |= {'ACCELERATE_USE_FSDP': 'true', 'FSDP_OFFLOAD_PARAMS': 'true'}


def is_main() -> bool:
    return rank() == 0


def say(text: str) -> None:
    if is_main():
        print(text, flush=True)


def shared_folder(args: SftArgs, source: ModelSource) -> Path:
    """The run's folder, the same in all processes."""
    folder = [run_folder(args.output_dir, source.name, args.add_output_dir_suffix)] if is_main() else [None]
    if world_size() > 1:
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        PartialState(cpu=not torch.cuda.is_available())
        broadcast_object_list(folder)
    assert folder[0] is not None
    return folder[0]
