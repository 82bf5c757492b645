"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, with vLLM's texts and statuses."""

from __future__ import annotations

import asyncio
import os

from starlette.responses import PlainTextResponse

from swiftlite.engine.errors import EngineDeadError
from swiftlite.errors import SwiftliteError
from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import LoadAdapterBody, UnloadAdapterBody
from swiftlite.serve.service import Service


async def load_adapter(service: Service, body: LoadAdapterBody) -> PlainTextResponse:
    """Make an adapter answer as a model of its own. With `load_inplace`, new weights replace one of that name."""
    if not body.lora_name or not body.lora_path:
        raise _invalid("Both 'lora_name' and 'lora_path' must be provided.")
    if not service.lora_enabled:
        raise ApiError('This server was started without adapters; start it with --enable_lora true.')
    async with service.change_of(body.lora_name):
        return await _load(service, body.lora_name, body.lora_path, body.load_inplace)


async def _load(service: Service, name: str, path: str, replace: bool) -> PlainTextResponse:
    old = service.models.adapter(name)
    if old is not None and not replace:
        raise _invalid(
            f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
            "'load_inplace' to True."
        )
    if old is None and name in service.models.names:
        raise _invalid(f"The name '{name}' belongs to the base model.")
    if not await asyncio.to_thread(os.path.isdir, path):  # a disk that hangs holds up nobody else
        raise ApiError(f"Loading lora {name} failed: '{path}' is not a folder.", status=404)
    request = service.models.request_for(name, path)
    try:
        await service.engine.add_lora(request)
    except EngineDeadError:
        raise
    except SwiftliteError as error:
        raise ApiError(f'Loading lora {name} failed: {error}') from None
    service.models.add(request)
    if old is not None and old.lora is not None:
        await service.engine.remove_lora(old.lora.lora_int_id)
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


async def unload_adapter(service: Service, body: UnloadAdapterBody) -> PlainTextResponse:
    """Take an adapter away and free its place; requests that use it finish first."""
    if not body.lora_name:
        raise _invalid("'lora_name' needs to be provided to unload a LoRA adapter.")
    async with service.change_of(body.lora_name):
        model = service.models.adapter(body.lora_name)
        if model is None or model.lora is None:
            raise ApiError(f"The lora adapter '{body.lora_name}' cannot be found.", status=404)
        service.models.remove(body.lora_name)
        service.metrics.forget(body.lora_name)
        await service.engine.remove_lora(model.lora.lora_int_id)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _invalid(message: str) -> ApiError:
    return ApiError(message, type='InvalidUserInput')
