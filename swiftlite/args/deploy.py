"""``swiftlite deploy``."""

import json
from dataclasses import dataclass
from typing import ClassVar

from swiftlite.args.fields import arg
from swiftlite.args.groups import RunArgs, SamplingArgs
from swiftlite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DeployArgs(SamplingArgs, RunArgs):
    """Serve a model and its adapters over OpenAI's API."""

    summary: ClassVar[str] = "Serve a model and its adapters over OpenAI's API; vLLM's server flags are understood."
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite deploy --model_type tiny-chat',
        'swiftlite deploy --ckpt_dir output/tiny-chat/v0-…/checkpoint-84 --lora_modules a=/adapters/a b=/adapters/b',
    )

    host: str = arg('0.0.0.0', 'address to listen on', group='server')
    port: int = arg(8000, 'port to listen on; 0: a free one', group='server', low=0, high=65535)
    api_key: list[str] = arg([], 'clients must send one of these as a bearer token', group='server')
    allowed_origins: list[str] = arg(
        [],
        "web pages that may call the server from a browser, such as https://chat.example; '*' for all",
        group='server',
    )
    ssl_keyfile: str | None = arg(None, 'key for https', group='server')
    ssl_certfile: str | None = arg(None, 'certificate for https', group='server')
    served_model_name: list[str] = arg(
        [], 'names the base model answers to', group='server', shown='the model type, or the path as given'
    )
    owned_by: str = arg('swiftlite', 'owned_by in /v1/models', group='server')
    verbose: bool = arg(True, 'log every request', group='server')
    max_queued_requests: int | None = arg(
        None,
        'requests that may wait beside those in the batch (--max_num_seqs); more are told to try later (429)',
        group='server',
        low=0,
        shown='no limit',
    )
    request_timeout: float = arg(
        0, 'seconds that a request may take before it is cut off (504); 0: no limit', group='server', low=0
    )
    max_body_size: float = arg(
        32, 'MiB that a request may hold; a longer one is refused (413)', group='server', low=0.001
    )
    log_interval: float = arg(10, 'seconds between lines of statistics; 0: none', group='server', low=0)
    shutdown_timeout: float = arg(
        30, 'seconds that running requests have to finish when the server is stopped', group='server', low=0
    )
    enable_lora: bool = arg(
        False,
        'let adapters be loaded while the server runs, too; --lora_modules and a LoRA in --ckpt_dir imply it',
        group='adapters',
        aliases=('vllm_enable_lora',),
    )

    def check(self) -> None:
        super().check()
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise UsageError('--ssl_keyfile and --ssl_certfile go together')
        origins = [origin for text in self.allowed_origins for origin in _texts('allowed_origins', text)]
        object.__setattr__(self, 'allowed_origins', origins)


def _texts(name: str, text: str) -> list[str]:
    """One value of a list, or several in vLLM's way of writing them: a JSON list."""
    if not text.lstrip().startswith('['):
        return [text]
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f"--{name} takes texts or a JSON list of texts, not '{text}'")
    return values
