"""What an engine takes: on the device, and in the memory of its process."""

from __future__ import annotations

import psutil
import torch

from ..engine.engine import Engine


def memory(engine: Engine) -> dict[str, float | None]:
    """GiB: tensors and all that is taken on the (first) GPU, adapters' pools there, this process, adapters' copies."""
    device, runner = engine.model_config.device, engine.executor.runner
    allocated = taken = None
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        allocated, taken = torch.cuda.memory_allocated(device), total - free
    stores = [linear.lora for linear in runner.model.linears() if linear.lora is not None]
    pool = sum(t.numel() * t.element_size() for store in stores for t in (store.a, store.b))
    copies = 0 if runner.lora is None else sum(copy.num_bytes for copy in list(runner.lora.reader.copies.values()))
    found = {
        'gpu_allocated_gib': allocated,
        'gpu_taken_gib': taken,
        'pool_gib': pool,
        'rss_gib': psutil.Process().memory_info().rss,
        'copies_gib': copies,
    }
    return {name: None if value is None else round(value / 2**30, 4) for name, value in found.items()}
