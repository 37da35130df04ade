"""How much faster the probe is than the paper's loop, and how exactly it gives the same answer.

    python -m experiments.benchmarks.probe --json experiments/benchmarks/results/probe.json

For each policy, 8 test problems with 8 rollouts each, that nothing was trained or tuned on, are probed by

- the reference (`naive.py`): 200 AdamW steps, full sequences, full logits;
- `exact`: `PaperSolver`, the same 200 gradients with the exact savings alone (frozen weights, prompts read once, answer-only
  logits, batches by length, nothing dead in the last layer, rollouts that are alike solved once);
- `fast`: `AdaptiveSolver` at each of `--tolerances`, with the exact savings; the first one's figures also stand at the top;
- `compiled`: the same with its steps in one kernel;
- the ceiling: `PaperSolver` in float64;
- `bf16`: `fast` with the weights in bfloat16 and the masks in float32, an option and not exact.

Agreement is judged over advantages (reward minus the group's mean), because that is what training sees.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver, ProbeResult
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import WordProblems
from experiments.benchmarks import agreement, naive
from experiments.benchmarks.memory import peak_mib

POLICIES = ("experiments/laptop/policy", "experiments/laptop/policy_atmanrl")
PROBLEMS, TASK_SEED = 8, 3
HEADLINE = ("speedup_fast", "advantage_pearson", "advantage_slope", "token_spearman", "reward_max_abs_diff")


def rollouts(policy: Policy, problems: int = PROBLEMS, seed: int = TASK_SEED) -> RolloutBatch:
    """Rollouts of test problems that can be probed; the same for the same policy."""
    task = WordProblems(train_size=1, test_size=200, seed=seed, instruction="")
    data = RolloutDataModule(task, test_problems=problems, eval_samples=agreement.GROUP, max_new_tokens=224)
    data.setup("test")
    return data.answer(policy, data.rows["test"], "test", 0, agreement.GROUP)


def targets(policy: Policy, batch: RolloutBatch) -> list[Target]:
    """What the reference probes; the same rollouts as `MaskProbe` does."""
    return [target(rollout, policy.tokenizer) for rollout in batch.rollouts if rollout.can_be_probed]


def on_all(batch: RolloutBatch, reward: Tensor) -> Tensor:
    """Rewards of the probed rollouts, with NaN for the others."""
    found = torch.full((len(batch),), float("nan"), dtype=reward.dtype)
    found[[r.can_be_probed for r in batch.rollouts]] = reward.cpu()
    return found


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """The result, and the seconds of each repetition."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        seconds.append(round(time.perf_counter() - began, 3))
    return result, seconds


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median and range of some times."""
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds), "repeats_s": seconds}


def memory(path: str, which: str, tolerance: float) -> float:
    """MiB that one gradient of all rollouts needs above the loaded model, in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.probe", "--memory", which, "--policies", path]
    done = subprocess.run([*command, "--tolerances", str(tolerance)], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure_memory(path: str, which: str, tolerance: float) -> float:
    """See `memory`; this is what the process does."""
    policy = Policy(path).build()
    batch = rollouts(policy)
    if which == "naive":
        probed = targets(policy, batch)
        return peak_mib(lambda: naive.run(policy, probed, steps=1))
    probe = MaskProbe(solver=AdaptiveSolver(tolerance, steps=4))
    return peak_mib(lambda: probe.solve(policy, batch))


def measure(path: str, tolerances: list[float], repeats: int, backend: str, seed: int) -> dict[str, Any]:
    """Everything on one policy's rollouts."""
    policy = Policy(path).build()
    batch = rollouts(policy, seed=seed)
    probed = targets(policy, batch)
    needs = {which: memory(path, which, tolerances[0]) for which in ("naive", "fast")}
    naive.run(policy, probed, steps=1, backend=backend)
    probes = {
        (tolerance, compiled): MaskProbe(solver=AdaptiveSolver(tolerance, compiled=compiled))
        for tolerance in tolerances
        for compiled in (False, True)
    }
    for compiled in (False, True):
        MaskProbe(solver=AdaptiveSolver(steps=3, compiled=compiled)).solve(policy, batch)  # all warm
    results: dict[tuple[float, bool], ProbeResult] = {}
    seconds: dict[tuple[float, bool], list[float]] = {each: [] for each in probes}

    def fast() -> None:
        for each, probe in probes.items():
            results[each], took = timed(functools.partial(probe.solve, policy, batch), repeats)
            seconds[each] += took

    # the machine's own mood changes over minutes: the fast probes are timed before, between and after the slow ones
    fast()
    reference, naive_seconds = timed(lambda: naive.run(policy, probed, backend=backend), 1)
    fast()
    exact, exact_seconds = timed(lambda: MaskProbe(solver=PaperSolver()).solve(policy, batch), 1)
    fast()
    double: ProbeResult = MaskProbe(solver=PaperSolver()).solve(Policy(path, dtype="float64").build(), batch)
    half, half_seconds = timed(
        lambda: probes[tolerances[0], False].solve(Policy(path, dtype="bfloat16").build(), batch), 1
    )
    truth = on_all(batch, reference.reward)
    saliency = iter(reference.saliency)
    tokens = [next(saliency) if rollout.can_be_probed else None for rollout in batch.rollouts]
    found = {
        each: {
            "speedup_fast": naive_seconds[0] / statistics.median(seconds[each]),
            "advantage_pearson": agreement.pearson(truth, result.reward),
            "advantage_slope": agreement.slope(truth, result.reward),
            "token_spearman": agreement.spearman(tokens, result.saliency),
            "reward_max_abs_diff": agreement.largest_difference(truth, result.reward),
            "gradients": float(result.gradients[result.gradients > 0].float().mean()),
            **spread(seconds[each]),
        }
        for each, result in results.items()
    }
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "rollouts": len(batch),
        "probed": len(probed),
        "distinct": len(set(probed)),
        "speedup_exact": naive_seconds[0] / exact_seconds[0],
        **{name: found[tolerances[0], False][name] for name in HEADLINE},
        "pearson_ceiling": agreement.pearson(double.reward, truth),
        "peak_memory_ratio": needs["naive"] / needs["fast"],
        "peak_memory_mib": needs,
        "exact_reward_max_abs_diff": agreement.largest_difference(truth, exact.reward),
        "exact_advantage_pearson": agreement.pearson(truth, exact.reward),
        "bf16": {
            "advantage_pearson": agreement.pearson(truth, half.reward),
            "advantage_slope": agreement.slope(truth, half.reward),
            "speedup": naive_seconds[0] / half_seconds[0],
        },
        "naive": spread(naive_seconds),
        "exact": spread(exact_seconds),
        "fast": {str(tolerance): figures for (tolerance, compiled), figures in found.items() if not compiled},
        "compiled": {str(tolerance): figures for (tolerance, compiled), figures in found.items() if compiled},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="The probe against the paper's loop: speed, agreement, memory.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.007, 0.004, 0.001])
    parser.add_argument("--repeats", type=int, default=2, help="of the fast probe, at each of three times")
    parser.add_argument(
        "--backend", default="sdpa", help="attention of the reference: sdpa (the default of a model) or eager"
    )
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument(
        "--task-seed", type=int, default=TASK_SEED, help="of the problems; memory is always the default's"
    )
    parser.add_argument("--memory", choices=["naive", "fast"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.memory:
        print(measure_memory(args.policies[0], args.memory, args.tolerances[0]))
        return
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.probe", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
        "task_seed": args.task_seed,
        "tolerances": args.tolerances,
        "reference_backend": args.backend,
        "policies": {},
    }
    for path in args.policies:
        found = results["policies"][path] = measure(path, args.tolerances, args.repeats, args.backend, args.task_seed)
        print(path, json.dumps(found), flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
