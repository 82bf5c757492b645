"""States of a checkpoint as a process with a GPU writes them."""

from pathlib import Path
from unittest.mock import patch

import torch


def write_as_gpu(checkpoint: Path) -> None:
    """Let a checkpoint of one process say that its optimizer was on a GPU, that it drew numbers there, in fp16."""
    optimizer = torch.load(checkpoint / 'optimizer.pt', map_location='cpu')
    with patch('torch.serialization.location_tag', lambda storage: 'cuda:0'):  # where a tensor is goes into the file
        torch.save(optimizer, checkpoint / 'optimizer.pt')
    states = torch.load(checkpoint / 'rng_state.pth', weights_only=False)
    states.setdefault('cuda', torch.zeros(16, dtype=torch.uint8))  # seed and offset
    torch.save(states, checkpoint / 'rng_state.pth')
    scaler = {'scale': 1024.0, 'growth_factor': 2.0, 'backoff_factor': 0.5, 'growth_interval': 2000}
    torch.save({**scaler, '_growth_tracker': 2}, checkpoint / 'scaler.pt')
