"""What enters the engine."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError
from .sampling_params import SamplingParams


@dataclass(frozen=True)
class LoRARequest:
    """An adapter to answer with: a name, a positive id that stands for it, and its folder (PEFT layout)."""

    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self) -> None:
        if not self.lora_name or not isinstance(self.lora_name, str):
            raise RequestError('LoRARequest needs a non-empty name.')
        if isinstance(self.lora_int_id, bool) or not isinstance(self.lora_int_id, int) or self.lora_int_id < 1:
            raise RequestError(f'LoRARequest id must be a positive integer, got {self.lora_int_id!r}.')
        if not self.lora_path or not isinstance(self.lora_path, str):
            raise RequestError(f'LoRARequest needs the path of a folder as text, got {self.lora_path!r}.')


@dataclass
class EngineRequest:
    """A tokenized request. `cache_salt` separates prefix-cache entries."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    lora: LoRARequest | None = None
    cache_salt: str | None = None
