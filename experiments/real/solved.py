"""What one solver makes of some traces, on disk as soon as it is known, and its comparison with the paper's solver."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe, Solver
from atmanrl.probe.agreement import Agreement
from atmanrl.rollouts import RolloutBatch
from experiments.benchmarks.agreement import spearman
from experiments.benchmarks.memory import peak_mib


@dataclass(frozen=True)
class Solved:
    """One solver's results for a chunk of traces.

    Attributes:
        rewards: the saliency reward of each trace.
        saliency: of each token of its reasoning; None where a trace was not probed.
        gradients: that it took.
        group_size: traces of a question, which lie one after the other.
        seconds: of the chunk.
        peak_mib: most memory of the GPU that was in use, or what a CPU's process needed above what it held before; None
            where it was not measured.

    Example:
        `Solved([0.1, 0.2], [[0.1], [0.3]], [39, 41], 2, 80.5, None)`
    """

    rewards: list[float]
    saliency: list[list[float] | None]
    gradients: list[int]
    group_size: int
    seconds: float
    peak_mib: float | None

    @classmethod
    def by(cls, solver: Solver, probe: MaskProbe, policy: Policy, batch: RolloutBatch) -> Solved:
        """Solve a batch."""
        measured, results = peak_on_gpu if policy.device.type == "cuda" else peak_mib, []
        began = time.perf_counter()
        peak = measured(lambda: results.append(probe.solve(policy, batch, solver)))
        [result] = results
        rewards = result.reward.double().tolist()  # which waits for the device
        seconds = round(time.perf_counter() - began, 2)
        saliency = [None if each is None else [round(value, 5) for value in each] for each in result.saliency]
        return cls(rewards, saliency, result.gradients.tolist(), batch.group_size, seconds, round(peak, 1))

    @classmethod
    def read(cls, path: Path) -> Solved | None:
        """Return what `write` has written; None where it has not."""
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            json.dump(asdict(self), file)


def peak_on_gpu(work: Callable[[], object]) -> float:
    """Return the most MiB of the GPU that were in use while `work` was done."""
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    work()
    return torch.cuda.max_memory_allocated() / 2**20


class Column:
    """What one solver has made of every chunk so far."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.saliency: list[list[float] | None] = []
        self.gradients: list[int] = []
        self.groups: list[int] = []
        self.seconds = 0.0
        self.peaks: list[float] = []

    def add(self, solved: Solved) -> None:
        """Add a chunk."""
        self.rewards += solved.rewards
        self.saliency += solved.saliency
        self.gradients += solved.gradients
        self.seconds += solved.seconds
        first = self.groups[-1] + 1 if self.groups else 0
        self.groups += [first + k // solved.group_size for k in range(len(solved.rewards))]
        self.peaks += [] if solved.peak_mib is None else [solved.peak_mib]

    def against(self, paper: Column) -> dict[str, Any]:
        """Compare with the paper's solver on the same traces."""
        agreement = Agreement.of(paper.rewards, self.rewards, self.groups)
        ours, reference = (centred(column.rewards, self.groups) for column in (self, paper))
        return {
            "traces": len(self.rewards), "gradients": float(np.mean(self.gradients)), "pearson": agreement.pearson,
            "pearson, lower bound": agreement.lower_bound(), "slope": agreement.slope,
            "largest difference of advantages": float(np.nanmax(np.abs(ours - reference))),
            "largest advantage": float(np.nanmax(np.abs(reference))), "spread of rewards": float(np.nanstd(reference)),
            "token spearman": spearman(paper.saliency, self.saliency), "seconds a trace": self.seconds / len(self.rewards),
            "peak_mib": round(max(self.peaks), 1) if self.peaks else None,
        }  # fmt: skip


def centred(rewards: Sequence[float], groups: Sequence[int]) -> np.ndarray:
    """Return the rewards minus the mean of their group."""
    values, labels = np.array(rewards), np.array(groups)
    means = np.array([np.nanmean(values[labels == group]) for group in groups])
    return np.asarray(values - means)
