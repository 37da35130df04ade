"""Step `instrument`: the adaptive solver against the paper's on real chains of thought, in float32.

Groups are questions of the task's test split: each has its gold solution and samples of the model as it came. All solvers
solve one chunk of questions before the next is begun, so that what is on disk compares the same traces at any moment. What
one solver made of one chunk is a file; the same call goes on where it was stopped, and another process may solve ahead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import torch

from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver, Solver
from atmanrl.probe.agreement import Agreement
from atmanrl.rollouts import RolloutBatch
from experiments.gpu.record import Record
from experiments.real.evaluation import append, stored
from experiments.real.questions import GOLD, groups
from experiments.real.scale import Scale
from experiments.real.solved import Column, Solved

TOLERANCES = (0.001, 0.004, 0.007)
CALIBRATED = "adaptive, agreement 0.99"


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
    policy, every = _model(args), solvers(scale.solver_steps)
    columns = {name: Column() for name in every}
    tolerances = []
    (args.work / "traces.jsonl").unlink(missing_ok=True)
    for number, batch in _chunks(args, scale, policy, record):
        for k, (name, solver) in enumerate(every.items()):
            columns[name].add(_solved(args, number, k, solver, policy, batch))
            if name == CALIBRATED:
                tolerances.append(solver.tolerance)
                _calibrate(solver, batch, columns["paper"], columns[name])
        _write(args, batch, columns, number * scale.chunk)
        record.put("solvers", {name: column.against(columns["paper"]) for name, column in columns.items()})
        record.put("tolerances of the calibrated solver", tolerances)


def solve_ahead(args: argparse.Namespace, scale: Scale, record: Record, first: int) -> None:
    """Solve the chunks from `first` on for a `measure` that comes to them later, in another process.

    The calibrated solver is left to that one, since its tolerance follows from the chunks before.
    """
    policy, every = _model(args), solvers(scale.solver_steps)
    for number, batch in _chunks(args, scale, policy, record, first):
        for k, (name, solver) in enumerate(every.items()):
            if name != CALIBRATED:
                _solved(args, number, k, solver, policy, batch)


def _model(args: argparse.Namespace) -> Policy:
    torch.set_float32_matmul_precision("highest")
    policy = Policy(str(args.work / "base")).build().to(args.device).eval()
    for weights in policy.parameters():
        weights.sum()  # they are read from the file when they are used: here, not where memory is measured
    return policy


def _solved(
    args: argparse.Namespace, chunk: int, k: int, solver: Solver, policy: Policy, batch: RolloutBatch
) -> Solved:  # fmt: skip
    """Read what the solver number k made of a chunk; solve and write where nobody has."""
    path = args.work / "solved" / f"{chunk:02}-{k}.json"
    solved = Solved.read(path)
    if solved is None:
        solved = Solved.by(solver, MaskProbe(batch_tokens=8192), policy, batch)
        solved.write(path)
    return solved


def _chunks(
    args: argparse.Namespace, scale: Scale, policy: Policy, record: Record, first: int = 0
) -> Iterator[tuple[int, RolloutBatch]]:
    """Yield chunks with their numbers, from `first` on, as long as there is time for another like the last."""
    each, needed = groups(args, scale, policy, record), 0.0
    for number in count():
        chunk = list(islice(each, scale.chunk))
        if not chunk or (number >= first and not record.in_time(f"questions from {number * scale.chunk}", needed)):
            return
        if number >= first:
            began = time.perf_counter()
            yield number, RolloutBatch([rollout for group in chunk for rollout in group], len(chunk[0]))
            needed = 1.2 * (time.perf_counter() - began)


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
    objects: list[dict[str, Any]] = []
    for k, rollout in enumerate(batch.rollouts):
        of = {name: column.rewards[len(column.rewards) - size + k] for name, column in columns.items()}
        saliency = columns["paper"].saliency[len(columns["paper"].saliency) - size + k]
        more = {"group": start + k // batch.group_size, "kind": "gold" if rollout.sample == GOLD else "own"}
        ids = {"completion_ids": rollout.completion.ids, "saliency": saliency}
        objects.append({**stored(rollout, **more), "rewards": of, **ids})
    append(args.work / "traces.jsonl", objects)
