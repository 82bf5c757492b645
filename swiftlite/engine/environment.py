"""What the engine's processes are started with."""

from __future__ import annotations

import os

SWITCH_INTERVAL = 5e-4  # seconds after which a thread that reads adapters lets the one that steps go on
CONFS = ('PYTORCH_CUDA_ALLOC_CONF', 'PYTORCH_ALLOC_CONF')  # the first that is set counts
MAPPED_FIRST = 'pinned_use_cuda_host_register'


def process_environment() -> dict[str, str]:
    """This process's environment, with host memory for adapters pinned after it was mapped.

    Otherwise the driver maps it under the lock that launches need: steps of 5 ms waited for up to 90.
    """
    found = dict(os.environ)
    name = next((name for name in CONFS if name in found), CONFS[-1])
    settings = found.get(name, '')
    if MAPPED_FIRST not in settings:
        found[name] = ','.join(filter(None, (settings, f'{MAPPED_FIRST}:True')))
    return found
