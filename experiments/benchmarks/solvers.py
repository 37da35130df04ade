"""How well, and with how many gradients, the adaptive solver follows the paper's 200 steps.

    python -m experiments.benchmarks.solvers --json experiments/benchmarks/results/solvers.json

For each policy, 8 test problems with 8 rollouts each are probed by `PaperSolver` (the reference) and by
`AdaptiveSolver` at several tolerances, all with the same exact savings (frozen weights, cached prompts, answer-only
logits, batches by length). Agreement is judged over advantages, because that is what training sees.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from atmanrl.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver, ProbeResult
from experiments.benchmarks import agreement
from experiments.benchmarks.probe import POLICIES, TASK_SEED, rollouts


def compared(reference: ProbeResult, result: ProbeResult) -> dict[str, float]:
    """How well a solver agrees with the reference."""
    return {
        "advantage_pearson": agreement.pearson(reference.reward, result.reward),
        "advantage_slope": agreement.slope(reference.reward, result.reward),
        "reward_max_abs_diff": agreement.largest_difference(reference.reward, result.reward),
        "token_spearman": agreement.spearman(reference.saliency, result.saliency),
    }


def measure(path: str, tolerances: list[float]) -> dict[str, object]:
    """The reference and every tolerance on one policy's rollouts."""
    policy = Policy(path).build()
    batch = rollouts(policy)
    found: dict[str, object] = {"rollouts": len(batch), "probed": sum(r.can_be_probed for r in batch.rollouts)}
    solvers = {"paper": PaperSolver(), **{f"adaptive {t}": AdaptiveSolver(tolerance=t) for t in tolerances}}
    MaskProbe(solver=AdaptiveSolver(steps=3)).solve(policy, batch)  # warm-up
    reference: ProbeResult | None = None
    for name, solver in solvers.items():
        began = time.perf_counter()
        result = MaskProbe(solver=solver).solve(policy, batch)
        seconds = time.perf_counter() - began
        reference = reference or result
        figures = {"gradients": float(result.gradients[result.gradients > 0].float().mean()), "seconds": seconds}
        if result is not reference:
            figures |= {"speedup_solver": reference.seconds / seconds, **compared(reference, result)}
        found[name] = figures
        print(path, name, {k: round(v, 4) for k, v in figures.items()}, flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Compare the adaptive solver with the paper's 200 steps.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.01, 0.008, 0.006, 0.004, 0.002, 0.001])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    args = parser.parse_args()
    torch.manual_seed(0)
    results = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.solvers", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
        "task_seed": TASK_SEED,
        "policies": {path: measure(path, args.tolerances) for path in args.policies},
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
