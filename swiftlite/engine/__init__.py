"""The inference engine: paged KV cache, continuous batching, adapters and tensor parallelism over one step shape.

Names are imported on first use: a process that only steps needs no tokenizer.
"""

from importlib import import_module

_WHERE = {
    'LLM': 'offline',
    'AsyncEngine': 'process.async_engine',
    'EngineConfig': 'config',
    'Engine': 'engine',
    'EngineRequest': 'request',
    'LoRARequest': 'request',
    'SamplingParams': 'sampling_params',
    'RequestOutputKind': 'sampling_params',
    'BeamSearchParams': 'beam_search',
    'StructuredOutputsParams': 'grammar.params',
    'GuidedDecodingParams': 'grammar.params',
    'Prompt': 'prompts',
    'TextPrompt': 'prompts',
    'TokensPrompt': 'prompts',
    'RequestOutput': 'outputs',
    'CompletionOutput': 'outputs',
    'Logprob': 'outputs',
    'EngineDeadError': 'errors',
    'RequestError': 'errors',
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_WHERE[name]}', __name__), name)
