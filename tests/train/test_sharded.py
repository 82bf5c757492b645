"""Packs on two processes that share the weights out (FSDP2) give the loss and the gradients of one process."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from swiftlite.train.model.attention import install_attention
from swiftlite.train.model.kernels import install_kernels
from swiftlite.train.model.loss import install_loss
from swiftlite.train.rows.collate import Collator
from swiftlite.train.rows.packing import PackedRows
from swiftlite.train.scale.memory import decoder_layers
from swiftlite.train.scale.rehearsal import recompute
from tests.train.test_packing import rows_of, tiny


def gradients(packs: list, kernels: bool, mesh=None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Summed loss and gradients of these packs, with one layer of two computed again."""
    model = tiny('Qwen2ForCausalLM', window=True)
    install_attention(model)
    install_loss(model)
    if kernels:
        install_kernels(model)
    recompute(model.train(), 1)
    if mesh is not None:
        for part in (*decoder_layers(model), model.lm_head, model):
            fully_shard(part, mesh=mesh)
    loss = sum(model(**part)['loss_sum'] for part in Collator(0, padding_free=True)(packs)['passes'])
    loss.backward()
    grads = [p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in model.parameters()]
    return loss.detach(), grads


def compare() -> None:
    """In each of two processes."""
    dist.init_process_group('gloo')
    mesh, rank = init_device_mesh('cpu', (2,)), dist.get_rank()
    rows = PackedRows(rows_of([9, 5, 14, 2, 7, 11, 3, 8]), 20, seed=0)
    packs = [rows[i] for i in range(len(rows))]
    assert len(packs) > 2
    for kernels in (False, True):
        wanted, alone = gradients(packs, kernels)
        loss, together = gradients(packs[rank::2], kernels, mesh)
        dist.all_reduce(loss)
        assert torch.allclose(loss, wanted, rtol=1e-6)
        for mean, whole in zip(together, alone, strict=True):
            assert torch.allclose(2 * mean, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    print('the same')
    dist.destroy_process_group()


def test_packs_on_shared_out_weights():
    root = Path(__file__).parents[2]
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', __file__]
    path = os.pathsep.join([str(root), str(root / 'kernels'), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('the same') == 2


if __name__ == '__main__':
    compare()
