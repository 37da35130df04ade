"""One update and one probe on several processes that hold slices of the weights, and what each of them takes."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from atmanrl.distributed import gathered
from atmanrl.distributed.sharding import build_sharded
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import scores_at
from atmanrl.probe import MaskProbe, PaperSolver, Target
from experiments.benchmarks.plan_check import M_MMAP_THRESHOLD, Work, above, policy_of

SHAPE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4, "head_dim": 64}
WORK = Work(prompt=16, completion=32, queries=2, group=2)
STEPS = 2


def processes(folder: Path, counts: Sequence[int], repeats: int) -> dict[int, list[dict[str, float]]]:
    """Return, for each number of processes, what each one took of the same update and the same probe.

    Args:
        folder: for the policy.
        counts: numbers of processes.
        repeats: of which the shortest counts.
    """
    policy = policy_of(SHAPE)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    results: dict[int, list[dict[str, float]]] = {}
    for count in counts:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        queue = mp.get_context("spawn").SimpleQueue()
        mp.spawn(_process, (count, port, str(folder), repeats, queue), count)  # type: ignore[no-untyped-call]
        results[count] = [queue.get() for _ in range(count)]
    return results


def _process(rank: int, count: int, port: int, folder: str, repeats: int, queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed leaves the process
    dist.init_process_group("gloo")
    if count == 1:
        measured = _measured(Policy(folder).build(), rank, count, repeats)
    else:
        mesh, device = init_device_mesh("cpu", (count,)), torch.device("cpu")
        measured = _measured(build_sharded(Policy(folder), mesh, device), rank, count, repeats)
        by_layer = _probed(build_sharded(Policy(folder), mesh, device, by_layer=True), rank, count, repeats)
        measured |= {f"{name}, by layer": value for name, value in by_layer.items()}
    queue.put(measured)
    dist.destroy_process_group()


def _measured(policy: Policy, rank: int, count: int, repeats: int) -> dict[str, float]:
    """Return processor seconds and bytes of this process, for its part of the rollouts."""
    ids = _ids(rank, count)
    before = torch.zeros_like(ids, dtype=torch.bool)
    before[:, WORK.prompt - 1 : -1] = True
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-6)

    def update() -> None:
        logprobs, _ = scores_at(policy.model, before, ids[:, WORK.prompt :].flatten(), input_ids=ids, use_cache=False)
        (-logprobs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    measured = {"seconds of an update": _seconds(update, repeats)} | _probed(policy, rank, count, repeats)
    weights = [_local(weight) for weight in policy.model.parameters()]
    moments = [_local(value) for state in optimizer.state.values() for value in state.values() if value.ndim]
    return measured | {"bytes of weights and moments": sum(each.nbytes for each in weights + moments)}


def _probed(policy: Policy, rank: int, count: int, repeats: int) -> dict[str, float]:
    """Return processor seconds and bytes that probing takes, the gathering of weights included."""
    probe = MaskProbe(solver=PaperSolver(steps=STEPS))
    targets = [
        Target(tuple(row[: WORK.prompt]), tuple(row[WORK.prompt : -5]), tuple(row[-5:-3]), tuple(row[-3:]))
        for row in _ids(rank, count).tolist()
    ]

    def probed() -> None:
        with gathered(policy):
            probe.solve_targets(policy, targets)

    return {f"seconds of a probe of {STEPS} gradients": _seconds(probed, repeats), "bytes of a probe": above(probed)}


def _ids(rank: int, count: int) -> torch.Tensor:
    """Return this process's rollouts."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 700, (WORK.rollouts, WORK.prompt + WORK.completion), generator=generator)[rank::count]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _seconds(work: Callable[[], None], repeats: int) -> float:
    """Return the shortest processor time of all threads; a first call does not count."""
    work()
    best = float("inf")
    for _ in range(repeats):
        dist.barrier()
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best
