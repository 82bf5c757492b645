"""The Python API in ms-swift's words: an engine in this process, or a client of a running server.

Names are imported on first use, so that a script that only uses the client needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftlite.engine.request import LoRARequest
    from swiftlite.llm.batch import inference, inference_stream, inference_stream_vllm, inference_vllm
    from swiftlite.llm.engine import ModelEngine, get_engine, get_vllm_engine
    from swiftlite.llm.generation import GenerationConfig
    from swiftlite.llm.names import ModelType, TemplateType, get_default_template_type
    from swiftlite.llm.prompt import get_template
    from swiftlite.serve.client import (
        get_model_list_client,
        get_model_list_client_async,
        inference_client,
        inference_client_async,
    )
    from swiftlite.serve.client_objects import ServerError, XRequestConfig

_WHERE = {
    'ModelType': 'swiftlite.llm.names',
    'TemplateType': 'swiftlite.llm.names',
    'get_default_template_type': 'swiftlite.llm.names',
    'get_engine': 'swiftlite.llm.engine',
    'get_vllm_engine': 'swiftlite.llm.engine',
    'ModelEngine': 'swiftlite.llm.engine',
    'GenerationConfig': 'swiftlite.llm.generation',
    'get_template': 'swiftlite.llm.prompt',
    'inference': 'swiftlite.llm.batch',
    'inference_stream': 'swiftlite.llm.batch',
    'inference_vllm': 'swiftlite.llm.batch',
    'inference_stream_vllm': 'swiftlite.llm.batch',
    'LoRARequest': 'swiftlite.engine.request',
    'XRequestConfig': 'swiftlite.serve.client_objects',
    'ServerError': 'swiftlite.serve.client_objects',
    'get_model_list_client': 'swiftlite.serve.client',
    'get_model_list_client_async': 'swiftlite.serve.client',
    'inference_client': 'swiftlite.serve.client',
    'inference_client_async': 'swiftlite.serve.client',
}
# names of ms-swift's module that stand for a command here
_COMMANDS = {
    'sft_main': 'sft', 'SftArguments': 'sft', 'pt_main': 'pt', 'infer_main': 'infer', 'InferArguments': 'infer',
    'export_main': 'export', 'ExportArguments': 'export', 'merge_lora': 'export --merge_lora true',
    'deploy_main': 'deploy', 'DeployArguments': 'deploy', 'app_ui_main': 'app-ui', 'AppUIArguments': 'app-ui',
    'eval_main': 'eval', 'EvalArguments': 'eval', 'DatasetName': 'models --kind datasets',
    'get_dataset': 'sft --dataset',
}  # fmt: skip
__all__ = [
    'GenerationConfig',
    'LoRARequest',
    'ModelEngine',
    'ModelType',
    'ServerError',
    'TemplateType',
    'XRequestConfig',
    'get_default_template_type',
    'get_engine',
    'get_model_list_client',
    'get_model_list_client_async',
    'get_template',
    'get_vllm_engine',
    'inference',
    'inference_client',
    'inference_client_async',
    'inference_stream',
    'inference_stream_vllm',
    'inference_vllm',
]


def __getattr__(name: str) -> object:
    if name in _COMMANDS:
        raise ImportError(f'swiftlite.llm has no {name}: run the command `swiftlite {_COMMANDS[name]}` instead')
    if name not in _WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
