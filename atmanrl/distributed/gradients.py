"""Gradients of an optimizer step over all processes: their mean, and their norm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning import Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from atmanrl.distributed.collectives import processes


@contextmanager
def averaging(trainer: Trainer, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Make gradients means over the processes, after all backward passes of an optimizer step, which the context surrounds.

    DDP's own way, within the last backward pass, asks for a pass that reaches every weight. Here each process runs as many
    passes as it has parts, none if it has none, and what they have left is averaged once. FSDP2 averages in each pass,
    since gradients of full weights would take as much memory as those.
    """
    model = trainer.strategy.model
    if not isinstance(model, DistributedDataParallel):
        yield
        return
    with model.no_sync():
        yield
    learning = [p for p in parameters if p.requires_grad]
    # a weight that no process has reached has no gradient, as on one process, and the optimizer passes over it
    reached = torch.tensor([p.grad is not None for p in learning], dtype=torch.uint8, device=learning[0].device)
    dist.all_reduce(reached, op=dist.ReduceOp.MAX)
    works = []
    for parameter, somewhere in zip(learning, reached.tolist(), strict=True):
        if somewhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad /= processes().count
            works.append(dist.all_reduce(parameter.grad, async_op=True))
    for work in works:
        work.wait()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """Scale gradients to a global norm of at most `limit`, and return their norm before, over all processes' slices."""
    learning = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(learning, limit, norm)
    return norm
