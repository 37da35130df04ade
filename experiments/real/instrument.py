"""Step `instrument`: the adaptive solver against the paper's on real chains of thought, in float32.

Groups are questions of the task's test split: each has its gold solution and samples of the model as it came. All solvers
solve one chunk of questions before the next is begun, so that what is on disk compares the same traces at any moment.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver, ProbeResult, Solver
from atmanrl.probe.agreement import Agreement
from atmanrl.rollouts import Rollout, RolloutBatch, traces
from atmanrl.rollouts.split import splitter_of
from experiments.benchmarks.agreement import spearman
from experiments.gpu.record import Record
from experiments.real.evaluation import answers, append, stored, test_rows
from experiments.real.scale import Scale
from experiments.real.tasks import task_of

TOLERANCES = (0.001, 0.004, 0.007)
CALIBRATED = "adaptive, agreement 0.99"
LONGEST = 220
"""Tokens of the longest reasoning that is taken."""


def solvers(steps: int) -> dict[str, Solver]:
    """Every solver by its name, the reference first."""
    adaptive: dict[str, Solver] = {f"adaptive, {t}": AdaptiveSolver(tolerance=t, steps=steps) for t in TOLERANCES}
    # four groups of four are as many rollouts as the two groups of eight that training checks
    return {
        "paper": PaperSolver(steps=steps), **adaptive,
        CALIBRATED: AdaptiveSolver(agreement=0.99, check_groups=4, steps=steps),
    }  # fmt: skip


def measure(args: argparse.Namespace, scale: Scale, record: Record) -> None:
    """Collect traces; solve them chunk by chunk."""
    torch.set_float32_matmul_precision("highest")
    policy = Policy(str(args.work / "base")).build().to(args.device).eval()
    groups = collect(args, scale, policy, record)
    probe, every = MaskProbe(batch_tokens=8192), solvers(scale.solver_steps)
    columns = {name: Column() for name in every}
    needed, tolerances = 0.0, []
    for start in range(0, len(groups), scale.chunk):
        chunk = groups[start : start + scale.chunk]
        if not record.in_time(f"questions from {start}", needed):
            break
        began = time.perf_counter()
        batch = RolloutBatch([rollout for group in chunk for rollout in group], len(chunk[0]))
        for name, solver in every.items():
            columns[name].add(probe, policy, batch, solver)
            if name == CALIBRATED:
                tolerances.append(solver.tolerance)
                _calibrate(solver, batch, columns["paper"], columns[name])
        needed = 1.2 * (time.perf_counter() - began)
        _write(args, batch, columns, start)
        record.put("solvers", {name: column.against(columns["paper"]) for name, column in columns.items()})
        record.put("tolerances of the calibrated solver", tolerances)


def collect(args: argparse.Namespace, scale: Scale, policy: Policy, record: Record) -> list[list[Rollout]]:
    """Return groups of a gold solution and of the model's own samples that have a reasoning and an answer."""
    splitter = splitter_of(scale.delimiter)
    task = task_of(scale.probed, args.work)
    task.ask_for(splitter.instruction)
    rows = [(i, p) for i, p in test_rows(task, 2 * scale.questions) if p.solution and not splitter.cuts(p.solution)]
    own = answers(policy, task, rows, scale.draws, scale.new_tokens, scale.delimiter, scale.temperature)
    groups = []
    for k, (row, problem) in enumerate(rows):
        usable = [
            r for r in own[k * scale.draws : (k + 1) * scale.draws]
            if r.can_be_probed and 5 <= r.parts.cot_length <= LONGEST
        ]  # fmt: skip
        gold = {
            "problem_id": problem.id, "prompt": task.prompt(problem), "cot": problem.solution, "gold": problem.gold,
            "right": True, "sample": -1,
        }  # fmt: skip
        if len(usable) >= scale.own:
            groups.append([traces.from_json(gold, row, policy, problem.id, splitter), *usable[: scale.own]])
    record.put("traces", {
        "questions asked": len(rows), "samples": len(own),
        "with reasoning and answer": sum(r.can_be_probed for r in own), "right": sum(bool(r.correct) for r in own),
        "questions": min(len(groups), scale.questions), "a question": 1 + scale.own,
    })  # fmt: skip
    return groups[: scale.questions]


class Column:
    """What one solver has measured so far."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.saliency: list[list[float] | None] = []
        self.gradients: list[int] = []
        self.groups: list[int] = []
        self.seconds, self.peak = 0.0, 0

    def add(self, probe: MaskProbe, policy: Policy, batch: RolloutBatch, solver: Solver) -> None:
        """Solve a batch."""
        cuda = policy.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        began = time.perf_counter()
        result: ProbeResult = probe.solve(policy, batch, solver)
        self.rewards += result.reward.double().tolist()  # which waits for the device
        self.seconds += time.perf_counter() - began
        self.saliency += result.saliency
        self.gradients += result.gradients.tolist()
        first = self.groups[-1] + 1 if self.groups else 0
        self.groups += [first + k // batch.group_size for k in range(len(batch))]
        self.peak = max(self.peak, torch.cuda.max_memory_allocated() if cuda else 0)

    def against(self, paper: Column) -> dict[str, Any]:
        """Compare with the paper's solver on the same traces."""
        agreement = Agreement.of(paper.rewards, self.rewards, self.groups)
        groups = np.array(self.groups)
        ours, theirs = (_centred(np.array(column.rewards), groups) for column in (self, paper))
        return {
            "traces": len(self.rewards), "gradients": float(np.mean(self.gradients)), "pearson": agreement.pearson,
            "pearson, lower bound": agreement.lower_bound(), "slope": agreement.slope,
            "largest difference of advantages": float(np.nanmax(np.abs(ours - theirs))),
            "largest advantage": float(np.nanmax(np.abs(theirs))), "spread of rewards": float(np.nanstd(theirs)),
            "token spearman": spearman(paper.saliency, self.saliency), "seconds a trace": self.seconds / len(self.rewards),
            "peak_mib": round(self.peak / 2**20, 1),
        }  # fmt: skip


def _centred(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    means = np.array([np.nanmean(rewards[groups == group]) for group in groups])
    return np.asarray(rewards - means)


def _calibrate(solver: Solver, batch: RolloutBatch, paper: Column, column: Column) -> None:
    """Let the tolerance follow as it does in training, from the reference's rewards, which are known already."""
    assert solver.calibration is not None
    due, size = solver.calibration.due, len(batch)
    latest = [values[-size:] if due else [] for values in (paper.rewards, column.rewards, column.groups)]
    check = Agreement.of(*latest)
    solver.calibration.observe(sum(column.gradients[-size:]), check, solver.steps * size * due)
    solver.tolerance = solver.calibration.tolerance


def _write(args: argparse.Namespace, batch: RolloutBatch, columns: dict[str, Column], start: int) -> None:
    """Append the chunk's traces: texts, rewards by every solver, and the paper's saliency of each token."""
    size = len(batch)
    objects = []
    for k, rollout in enumerate(batch.rollouts):
        of = {name: column.rewards[len(column.rewards) - size + k] for name, column in columns.items()}
        paper = columns["paper"].saliency[len(columns["paper"].saliency) - size + k]
        more = {"group": start + k // batch.group_size, "kind": "gold" if rollout.sample < 0 else "own"}
        saliency = None if paper is None else [round(value, 5) for value in paper]
        ids = {"completion_ids": rollout.completion.ids, "saliency": saliency}
        objects.append({**stored(rollout, **more), "rewards": of, **ids})
    append(args.work / "traces.jsonl", objects)
