"""How several processes share a training."""

from dataclasses import dataclass
from pathlib import Path

from swiftlite.args.fields import Args, arg
from swiftlite.errors import UsageError, nearest

FSDP = {
    'full_shard': 'full_shard',
    'shard_grad_op': 'shard_grad_op',
    'offload': 'offload',
    'fsdp2': 'full_shard',
    'true': 'full_shard',
    'auto_wrap': 'auto_wrap',
}
ZERO = ('zero0', 'zero1', 'zero2', 'zero3', 'zero2_offload', 'zero3_offload')


@dataclass(frozen=True, kw_only=True)
class ScaleArgs(Args):
    """What each process holds; how many there are is said by NPROC_PER_NODE and NNODES."""

    fsdp: list[str] = arg(
        [],
        "share the model's weights out to the processes (FSDP2): full_shard; shard_grad_op keeps them together from "
        'the forward to the backward pass; offload beside one of them keeps them in the CPU memory',
        group='several GPUs',
        choices=FSDP,
        shown='each process holds a copy',
    )
    deepspeed: str | None = arg(
        None,
        f'the same by DeepSpeed, where it is installed: {", ".join(ZERO)}, or a JSON file of its own',
        group='several GPUs',
    )

    def check(self) -> None:
        super().check()
        modes = [mode for mode in dict.fromkeys(self.fsdp) if mode != 'auto_wrap']  # layers are always units
        if self.fsdp and (not modes or modes == ['offload']):
            modes = ['full_shard', *modes]
        if len(set(modes) - {'offload'}) > 1:
            raise UsageError('--fsdp takes one of full_shard and shard_grad_op, not both')
        object.__setattr__(self, 'fsdp', modes)
        if self.deepspeed is None:
            return
        if self.fsdp:
            raise UsageError('--fsdp and --deepspeed share the weights out in different ways: give one')
        if self.deepspeed not in ZERO and not Path(self.deepspeed).expanduser().is_file():
            hint = nearest(self.deepspeed, ZERO)
            raise UsageError(f"--deepspeed takes {', '.join(ZERO)} or a JSON file, not '{self.deepspeed}'{hint}")
