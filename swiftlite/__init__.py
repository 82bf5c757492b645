"""swiftlite: fine-tune, merge, run and serve chat models with one prompt encoder.

Public names are imported on first use, so that ``import swiftlite`` needs no torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'
__all__ = [
    'LLM',
    'AsyncEngine',
    'BeamSearchParams',
    'CompletionOutput',
    'EngineConfig',
    'LoRARequest',
    'RequestOutput',
    'SamplingParams',
    'StructuredOutputsParams',
    'TextPrompt',
    'TokensPrompt',
    '__version__',
]

if TYPE_CHECKING:
    from swiftlite.engine import (
        LLM,
        AsyncEngine,
        BeamSearchParams,
        CompletionOutput,
        EngineConfig,
        LoRARequest,
        RequestOutput,
        SamplingParams,
        StructuredOutputsParams,
        TextPrompt,
        TokensPrompt,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        import swiftlite.engine

        return getattr(swiftlite.engine, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(__all__)
