"""Weights and optimizer states that several processes share out: gathered to be saved, shared out when loaded.

What is written does not depend on how many processes there were. Plain tensors pass through unchanged.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import safe_open
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainingArguments

from swiftlite.errors import SwiftliteError


def share_weights(accelerator: Any, arguments: TrainingArguments) -> None:
    """Have accelerate share weights out (FSDP2), on CPUs too, which it leaves out by itself.

    Products are in the half precision of the arguments; gradients are summed, and the loss is kept, in fp32.
    """
    state = accelerator.state
    if state.distributed_type != DistributedType.FSDP:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state['distributed_type'] = DistributedType.FSDP
    if arguments.bf16 or arguments.fp16:
        half = torch.bfloat16 if arguments.bf16 else torch.float16
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)


def shares(model: nn.Module) -> str:
    """What is printed before training."""
    parts, world = (
        [isinstance(parameter, DTensor) for parameter in model.parameters()],
        torch.distributed.get_world_size(),
    )
    return f'FSDP2: {sum(parts)} of {len(parts)} tensors are shared out to {world} processes'


def gathered(tensors: Iterable[tuple[str, torch.Tensor]], keep: bool) -> dict[str, torch.Tensor]:
    """The whole tensors in the CPU's memory, {} where `keep` is false; all processes must call it.

    A tensor that has several names is gathered once.
    """
    found: dict[str, torch.Tensor] = {}
    seen: dict[int, torch.Tensor | None] = {}
    for name, tensor in tensors:
        if id(tensor) not in seen:
            whole = tensor.detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            seen[id(tensor)] = whole.cpu() if keep else None
        if keep:
            found[name] = seen[id(tensor)]  # type: ignore[assignment]
    return found


def gathered_optimizer(optimizer: Any, keep: bool) -> dict[str, Any]:
    """`optimizer.state_dict()` with whole tensors in the CPU's memory; all processes must call it."""
    found = optimizer.state_dict()
    state = {
        index: {
            name: gathered([(name, value)], keep).get(name) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for index, values in sorted(found['state'].items())
    }
    return {**found, 'state': state}


def shared_out(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, laid out as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    return distribute_tensor(whole.to(mesh.device_type), mesh, like.placements, src_data_rank=None)


def load_optimizer(optimizer: Any, whole: dict[str, Any]) -> None:
    """Load what `gathered_optimizer` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    state = {
        index: {
            name: shared_out(value, parameters[index]).to(parameters[index].device)
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in whole['state'].items()
    }
    optimizer.load_state_dict({**whole, 'state': state})


@torch.no_grad()
def load_weights(parameters: dict[str, nn.Parameter], files: Iterable[Path]) -> None:
    """Copy the tensors of safetensors files into parameters of these names.

    Raises:
        SwiftliteError: a parameter that is trained is in no file, or has another shape there.
    """
    missing = {name for name, parameter in parameters.items() if parameter.requires_grad}
    for path in files:
        with safe_open(str(path), framework='pt') as file:
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                if name not in parameters:
                    continue
                value, parameter = file.get_tensor(name), parameters[name]
                if value.shape != parameter.shape:
                    shapes = f'{list(value.shape)}, not {list(parameter.shape)}'
                    raise SwiftliteError(f"{path}: '{name}' has shape {shapes}")
                parameter.copy_(shared_out(value.to(parameter.dtype), parameter))
                missing.discard(name)
    if missing:
        raise SwiftliteError(
            f'{len(missing)} trained tensor(s) are in no file of the checkpoint, first: {min(missing)}'
        )
