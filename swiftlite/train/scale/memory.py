"""How much memory a training needs: counted for what is fixed, measured on one layer for what grows with tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from swiftlite.train.model.loss import CHUNK, output_layer
from swiftlite.train.scale.ranks import processes_here

GIB = 2**30
PROBES = (64, 128)  # tokens of the two measurements that a line is drawn through
FULL = ('out of memory', 'CUBLAS_STATUS_ALLOC_FAILED', 'CUDNN_STATUS_ALLOC_FAILED')  # what errors of a full GPU say
USABLE = 0.92  # of the memory there is: the rest is fragments and libraries


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device; activations are those of one pass over `tokens`."""

    weights: int
    gradients: int
    optimizer: int
    layers: int
    tokens: int
    kept: float  # of one layer, for each token
    copied: float  # of one layer, for all tokens together: weights in another dtype, there until the pass is over
    head: int  # of the output layer's gradient while it is summed up, where it is trained
    vocabulary: int
    entered: float  # what enters a layer, for each token: all that is kept of one that is computed again
    recomputed: int = 0  # layers that are computed again in the backward pass

    @property
    def activations(self) -> int:
        """Of all layers and the loss, and one layer's once more: what its backward pass works with."""
        whole = self.layers - self.recomputed
        layers = (whole + 1) * self.kept * self.tokens + self.recomputed * self.entered * self.tokens
        layers += (self.layers + 1) * self.copied
        loss = 3 * 4 * min(CHUNK, self.tokens * self.vocabulary)  # logits in flight, and as many for their gradients
        loss += self.head
        return int(layers + 2 * self.entered * self.tokens + loss)

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def fitting(self, available: int) -> 'Estimate':
        """With as few layers computed again as fit into the usable part of `available`; all where none do."""
        for count in range(self.layers + 1):
            found = replace(self, recomputed=count)
            if found.total <= USABLE * available:
                break
        return found

    def most_tokens(self, available: int) -> int:
        """Tokens of a pass that fit when every layer is computed again; 0 where the model alone does not."""
        one, two = (replace(self, recomputed=self.layers, tokens=tokens).total for tokens in (0, 1024))
        return max(int((USABLE * available - one) / ((two - one) / 1024)), 0)

    def parts(self) -> str:
        """'14.2 GiB weights + …'."""
        named = (('weights', self.weights), ('gradients', self.gradients), ('optimizer', self.optimizer))
        texts = [f'{size(value)} {name}' for name, value in named]
        return ' + '.join([*texts, f'{size(self.activations)} activations of {self.tokens:,} tokens'])


def estimate(model: Any, tokens: int, dtype: torch.dtype, shards: int = 1) -> Estimate:
    """Of a transformers causal LM, with an adapter or whole, that trains with AdamW in `dtype`.

    Args:
        tokens: of a pass.
        shards: devices that share weights, gradients and the optimizer's state.
    """
    layers = decoder_layers(model)
    weights = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    moments = 2 * gradients  # AdamW keeps two numbers of the gradient's dtype
    few, many = (kept_by_a_layer(model, count, dtype) for count in PROBES)
    slope = (many - few) / (PROBES[1] - PROBES[0])
    config, head = model.config.get_text_config(), output_layer(model)
    return Estimate(
        weights=weights // shards,
        gradients=gradients // shards,
        optimizer=moments // shards,
        layers=len(layers),
        tokens=tokens,
        kept=slope,
        copied=max(few - slope * PROBES[0], 0),
        head=4 * sum(p.numel() for p in head.parameters() if p.requires_grad),
        vocabulary=config.vocab_size,
        entered=config.hidden_size * dtype.itemsize,
    )


def decoder_layers(model: nn.Module) -> list[Any]:
    """The layers whose activations can be computed again, first to last."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def kept_by_a_layer(model: Any, tokens: int, dtype: torch.dtype) -> int:
    """Bytes that the first layer keeps of `tokens` tokens for its backward pass; the model stays as it was."""
    network = (model.get_base_model() if hasattr(model, 'get_base_model') else model).base_model
    device = next(network.parameters()).device
    where = {
        'input_ids': torch.zeros(1, tokens, dtype=torch.long, device=device),
        'attention_mask': torch.empty(1, 1, 1, 1, device=device),
        'position_ids': torch.arange(tokens, device=device)[None],
        'cu_seqlens': torch.tensor([0, tokens], dtype=torch.int32, device=device),
        'lengths': [tokens],
    }
    sizes = [0]
    training = model.training
    model.train()
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        for count in (1, 2)[: len(decoder_layers(network))]:
            with few_layers(network, count), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                with saved_bytes(model) as seen:
                    kept = network(use_cache=False, **where)
                sizes.append(sum(seen.values()))
                del kept
    model.train(training)
    return sizes[-1] - sizes[-2]


@contextmanager
def few_layers(network: Any, count: int) -> Iterator[None]:
    """`network` runs its first `count` layers only, and none is computed again."""
    config, layers = network.config, decoder_layers(network)
    number, flags = config.num_hidden_layers, [layer.gradient_checkpointing for layer in layers]
    config.num_hidden_layers = min(count, number)
    for layer in layers:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        config.num_hidden_layers = number
        for layer, flag in zip(layers, flags, strict=True):
            layer.gradient_checkpointing = flag


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    """Storage -> bytes of what autograd keeps meanwhile, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield seen


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Make a torch.OutOfMemoryError of what CUDA, its libraries and Triton raise on a full GPU, RuntimeErrors too."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not any(word in str(error) for word in FULL):
            raise
        raise torch.OutOfMemoryError(str(error).splitlines()[0]) from error


def available_memory(device: torch.device) -> int:
    """Bytes this process can get on its device; on a GPU, with those it has already, of a CPU's a part."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available // processes_here()


def forget_peak(device: torch.device) -> None:
    """`peak_memory` counts from here on."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes that tensors took at once on a GPU; 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else 0


def most_tokens_of_a_pass(lengths: np.ndarray, batch_size: int, budget: int | None, padding_free: bool) -> int:
    """Tokens of the largest pass that rows of these lengths can make up, padding too."""
    longest = np.sort(lengths)[-batch_size:]
    most = int(longest.sum() if padding_free else longest[-1] * len(longest))
    return most if budget is None else max(min(most, budget), int(longest[-1]))


def size(count: float) -> str:
    """'14.2 GiB' or '3 MiB'."""
    return f'{count / GIB:.1f} GiB' if count >= 0.1 * GIB else f'{count / 2**20:.0f} MiB'
