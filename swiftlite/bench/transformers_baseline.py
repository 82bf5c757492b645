"""transformers.generate on the same requests: one padded batch, or one after the other."""

import time
from typing import Any

import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM

from ..checkpoint.native import native_checkpoint
from .workload import Request


def load(path: str, dtype: torch.dtype, device: str) -> Any:
    """The native transformers model of a checkpoint, without the checkpoint's own sampling defaults."""
    model = AutoModelForCausalLM.from_pretrained(native_checkpoint(path), dtype=dtype).to(device).eval()
    generation = model.generation_config
    generation.eos_token_id, generation.do_sample = None, False
    generation.temperature = generation.top_p = generation.top_k = None
    generation.repetition_penalty = 1.0
    return model


@torch.inference_mode()
def run_batch(model: Any, requests: list[Request]) -> float:
    """Seconds for one left-padded batch that runs until its longest request is done."""
    width = max(len(r.prompt) for r in requests)
    ids = torch.zeros(len(requests), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, r in enumerate(requests):
        ids[row, width - len(r.prompt) :] = torch.tensor(r.prompt)
        mask[row, width - len(r.prompt) :] = 1
    longest = max(r.output_len for r in requests)
    start = time.perf_counter()
    _generate(model, ids.to(model.device), mask.to(model.device), longest)
    return time.perf_counter() - start


@torch.inference_mode()
def run_single(model: Any, requests: list[Request]) -> float:
    """Seconds for one request after the other."""
    start = time.perf_counter()
    for r in tqdm(requests, desc='transformers, one by one', unit='req', dynamic_ncols=True):
        ids = torch.tensor([r.prompt], device=model.device)
        _generate(model, ids, torch.ones_like(ids), r.output_len)
    return time.perf_counter() - start


def _generate(model: Any, ids: torch.Tensor, mask: torch.Tensor, count: int) -> None:
    out = model.generate(ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, pad_token_id=0)
    assert out.shape[1] == ids.shape[1] + count
