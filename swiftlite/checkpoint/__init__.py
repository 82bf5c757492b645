"""Checkpoints on disk: configs, tensors and tokenizers under native names, PEFT adapters.

Names are imported on first use, so that reading a config or a tokenizer does not import torch.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    'read_config': 'config',
    'raw_config': 'config',
    'generation_config': 'config',
    'sampling_defaults': 'config',
    'iter_tensors': 'tensors',
    'load_tokenizer': 'tokenizer',
    'native_checkpoint': 'native',
    'fingerprint': 'identity',
    'Adapter': 'adapter',
    'LoRAWeights': 'adapter',
    'read_adapter': 'adapter',
    'write_adapter': 'adapter',
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_WHERE[name]}', __name__), name)
