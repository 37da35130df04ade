"""Does our trainer learn as TRL's `GRPOTrainer` does, at equal updates?

    python -m experiments.benchmarks.grpo_learning --json experiments/benchmarks/results/grpo_learning.json

For every seed both trainers start from the laptop policy and learn from the outcome alone, with the settings of
`trainers.py`: the same problems in the same updates, the same optimizer. Every `--every` updates the weights are put
into a policy of ours, which answers the same test problems with the same random numbers whoever trained it. A seed has
problems of its own to train and to test on, so seeds are independent.

A seed's difference is the mean over its evaluations (the warm start's left out) of our accuracy minus TRL's.
`difference_mean` and `difference_se` are its mean over seeds and that mean's standard error; `not_below` says whether the
mean is above minus two standard errors. `evaluations` has the same for each evaluation, `training` for the accuracy of
the rollouts that both learned from, which is another estimate on other problems, free of cost. `gain` is what either won
over the warm start in the last evaluation.

Results are written after each seed; the same command goes on where it was interrupted, and more `--seeds` add to it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from experiments.benchmarks.grpo_learning_figure import draw
from experiments.benchmarks.trainers import Setting, Update, atmanrl_trainer, trl_trainer

TRAINERS = {"trl": trl_trainer, "atmanrl": atmanrl_trainer}
AT_ONCE = 64
"""Problems answered at once in evaluation."""


def accuracy(model: nn.Module, policy: Policy, setting: Setting, samples: int) -> float:
    """Share of right rollouts of the held-out problems, sampled by `policy` with the model's weights."""
    policy.model.load_state_dict(model.state_dict())
    data = setting.data()
    data.setup("test")
    rows = data.rows["test"]
    right = [
        bool(rollout.correct)
        for start in range(0, len(rows), AT_ONCE)
        for rollout in data.answer(policy, rows[start : start + AT_ONCE], "test", 0, samples).rollouts
    ]
    return statistics.mean(right)


def curve(who: str, setting: Setting, every: int, samples: int) -> dict[str, list[float]]:
    """One training: accuracy on held-out problems every so many updates, and of the rollouts of every update."""
    held_out: list[float] = []
    training: list[float] = []
    policy = Policy(setting.policy).build()

    def watch(update: Update) -> None:
        if update.number:
            training.append(update.accuracy)
        if update.number % every == 0:
            held_out.append(accuracy(update.model, policy, setting, samples))
            print(f"seed {setting.seed}, {who}, update {update.number}: {held_out[-1]:.4f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        TRAINERS[who](setting, folder, watch)()
    return {"accuracy": held_out, "training_accuracy": training}


def run(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Both trainings of a seed."""

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return getattr(torch.optim, args.optimizer)(parameters, lr=args.lr, weight_decay=0.0)

    setting = Setting(
        args.policy, optimizer, args.updates, seed, args.task_seed + seed, args.problems, minibatch=args.minibatch
    )
    curves = {who: curve(who, setting, args.every, args.samples) for who in TRAINERS}
    if len({found["accuracy"][0] for found in curves.values()}) > 1:
        raise SystemExit("the warm start's accuracy depends on who asks: the evaluations are not the same.")
    return {"seed": seed, **curves}


def mean_and_error(values: list[float]) -> dict[str, float]:
    """A mean over seeds and its standard error."""
    return {"mean": statistics.mean(values), "se": statistics.stdev(values) / len(values) ** 0.5}


def difference(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Seed by seed, ours minus theirs."""
    found = mean_and_error([a - b for a, b in zip(ours, theirs, strict=True)])
    mean, error = found["mean"], found["se"]
    return {"difference_mean": mean, "difference_se": error, "not_below": mean > -2 * error}


def summary(runs: list[dict[str, Any]], every: int) -> dict[str, Any]:
    """All seeds together."""
    curves = {who: [run[who]["accuracy"] for run in runs] for who in TRAINERS}
    training = {who: [statistics.mean(run[who]["training_accuracy"]) for run in runs] for who in TRAINERS}
    after = {who: [statistics.mean(curve[1:]) for curve in curves[who]] for who in TRAINERS}
    evaluations = []
    for number in range(1, len(curves["trl"][0])):
        at = {who: [curve[number] for curve in curves[who]] for who in TRAINERS}
        means = {who: statistics.mean(at[who]) for who in TRAINERS}
        evaluations.append({"update": number * every, **means, **difference(at["atmanrl"], at["trl"])})
    return {
        **difference(after["atmanrl"], after["trl"]),
        "gain": {who: mean_and_error([curve[-1] - curve[0] for curve in curves[who]]) for who in TRAINERS},
        "training": difference(training["atmanrl"], training["trl"]),
        "warm_start": statistics.mean(curve[0] for curve in curves["trl"]),
        "evaluations": evaluations,
    }


def write(results: dict[str, Any], path: Path) -> None:
    """Results with their summary, which takes two seeds at least: one has no deviation."""
    runs = results["runs"]
    results["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    results["versions"] = {
        "python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers", "trl", "lightning")}
    }  # fmt: skip
    results["summary"] = summary(runs, results["setting"]["every"]) if len(runs) > 1 else None
    with atomic_write(path) as file:
        file.write(json.dumps(results, indent=2) + "\n")


def main() -> None:
    """Train, evaluate, write and draw."""
    parser = argparse.ArgumentParser(description="Accuracy over updates: ours against TRL's.")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--policy", default="experiments/laptop/policy")
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--every", type=int, default=12, help="updates between evaluations")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", type=int, default=256, help="test problems of an evaluation")
    parser.add_argument("--samples", type=int, default=4, help="rollouts of each")
    parser.add_argument("--optimizer", default="SGD", help="a class of torch.optim")
    parser.add_argument("--lr", type=float, default=0.15)
    parser.add_argument("--minibatch", type=int, default=2, help="problems of an optimizer step")
    parser.add_argument("--task-seed", type=int, default=100, help="of the first seed's problems")
    args = parser.parse_args()
    told = {name: value for name, value in vars(args).items() if name not in ("json", "seeds")}
    results: dict[str, Any] = {"setting": told, "runs": []}
    if args.json.exists():
        results = json.loads(args.json.read_text())
        if results["setting"] != told:
            raise SystemExit(f"{args.json} has other settings ({results['setting']}); give another --json.")

    done = {found["seed"] for found in results["runs"]}
    for seed in (seed for seed in range(args.seeds) if seed not in done):
        results["runs"] = sorted([*results["runs"], run(seed, args)], key=lambda found: found["seed"])
        write(results, args.json)
    write(results, args.json)
    print(json.dumps(results["summary"], indent=2))
    draw(results, args.json)


if __name__ == "__main__":
    main()
