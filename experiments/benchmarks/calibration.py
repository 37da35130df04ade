"""Does a tolerance that calibrates itself keep its promise, on policies that nothing of it was tuned on?

    python -m experiments.benchmarks.calibration --policy NAME=FOLDER:TASK --json OUT.json

A policy that does not learn answers `--updates` updates of 8 problems with 8 rollouts each, whose rollouts are probed with
`AdaptiveSolver(agreement=0.99)`: it checks itself and moves its tolerance. With the tolerance that it has come to, 8 more
problems are probed, by the paper's solver too: their agreement was asked for, and none of the checks has seen them. In
training checks take 5 % of the gradients, here `--share`, so that the checks of a run of hundreds of updates are made in
a few. TASK is `word_problems` or `multihop`. Results of policies that a call does not name stay in the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.probe.agreement import Agreement
from atmanrl.rewards import SaliencyReward
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import MultiHop, WordProblems
from experiments.benchmarks.agreement import GROUP

PROBLEMS, SEED, STEPS = 8, 9, 200
TASKS = {
    "word_problems": lambda size: WordProblems(train_size=1, test_size=size, seed=SEED, instruction=""),
    "multihop": lambda size: MultiHop(steps=(2, 3), train_size=1, test_size=size, seed=SEED, instruction=""),
}


def updates(policy: Policy, task: str, count: int) -> list[RolloutBatch]:
    """Return rollouts of `count` updates, of other problems each."""
    data = RolloutDataModule(
        TASKS[task](PROBLEMS * count), test_problems=PROBLEMS * count, eval_samples=GROUP, max_new_tokens=224, seed=SEED
    )
    data.setup("test")
    batches = []
    for update in range(count):
        rows = data.rows["test"][PROBLEMS * update : PROBLEMS * (update + 1)]
        batch = data.answer(policy, rows, "test", update, GROUP)
        batches.append(replace(batch, places={row: place for place, (row, _) in enumerate(rows)}))
    return batches


def measure(folder: str, task: str, count: int, target: float, share: float) -> dict[str, Any]:
    """Let the tolerance find itself over all updates but the last, and judge it on that one."""
    policy = Policy(folder).build()
    *seen, unseen = updates(policy, task, count + 1)
    reward = SaliencyReward(probe=MaskProbe(solver=AdaptiveSolver(agreement=target, check_share=share, steps=STEPS)))
    course = []
    for batch in seen:
        before = reward.probe.solver.tolerance
        reward(batch, policy)
        probed = [rollout for rollout in batch.rollouts if rollout.gradients]
        checked = sum(rollout.check is not None for rollout in batch.rollouts)
        metrics = reward.observe(batch)
        course.append(
            {
                "tolerance": before,
                "gradients": sum(rollout.gradients for rollout in probed) / max(1, len(probed)),
                "checked": checked,
                "agreement": metrics.get("probe/agreement"),
                "lower": metrics.get("probe/agreement_lower"),
            }
        )
    final = AdaptiveSolver(reward.probe.solver.tolerance, steps=STEPS)
    fast = reward.probe.solve(policy, unseen, final)
    reference = reward.probe.solve(policy, unseen, PaperSolver.reference(final))
    rows = [rollout.row for rollout in unseen.rollouts]
    found = Agreement.of(reference.reward.tolist(), fast.reward.tolist(), rows)
    taken = sum(each["gradients"] * PROBLEMS * GROUP for each in course)
    return {
        "task": task,
        "target": target,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "tolerance": final.tolerance,
        "gradients": float(fast.gradients[fast.gradients > 0].float().mean()),
        "checks": sum(each["checked"] > 0 for each in course),
        "share_of_checks": sum(each["checked"] for each in course) * STEPS / taken,
        "pearson": found.pearson,
        "interval": found.interval(),
        "slope": found.slope,
        "rollouts": found.rollouts,
        "course": course,
    }


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.calibration", description=__doc__.split("\n")[0]
    )
    options.add_argument(
        "--policy", action="append", required=True, metavar="NAME=FOLDER:TASK", help="may be given several times"
    )
    options.add_argument("--updates", type=int, default=16, help="before it is judged (default: 16)")
    options.add_argument("--share", type=float, default=0.5, help="of the gradients, for checks (default: 0.5)")
    options.add_argument("--target", type=float, default=0.99, help="wanted correlation of advantages (default: 0.99)")
    options.add_argument("--json", type=Path)
    return options


def named(option: str) -> tuple[str, str, str]:
    """Split NAME=FOLDER:TASK.

    Raises:
        SystemExit: the option has another form, or there is no such task.
    """
    name, _, rest = option.partition("=")
    folder, _, task = rest.rpartition(":")
    if not folder or task not in TASKS:
        raise SystemExit(f"--policy={option}: give NAME=FOLDER:TASK, with TASK one of {', '.join(TASKS)}.")
    return name, folder, task


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    policies = [named(option) for option in args.policy]
    results: dict[str, Any] = {"policies": {}}
    if args.json and args.json.exists():
        results = json.loads(args.json.read_text())
    for name, folder, task in policies:
        torch.manual_seed(0)
        figures = measure(folder, task, args.updates, args.target, args.share)
        results["policies"][name] = {
            "command": shlex.join(["python", "-m", "experiments.benchmarks.calibration", *argv]),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
            **figures,
        }
        print(name, json.dumps(figures), flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(args.json) as file:
                file.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
