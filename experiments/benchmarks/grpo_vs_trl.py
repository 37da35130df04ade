"""Our trainer against TRL's `GRPOTrainer`: seconds and memory of the same updates, and what saliency adds to ours.

    python -m experiments.benchmarks.grpo_vs_trl --json experiments/benchmarks/results/grpo_vs_trl.json

The laptop policy, 8 problems with 8 rollouts of at most 128 tokens an update, two passes of four minibatches of 16
rollouts, the outcome as reward, float32, no KL term; `trainers.py` says what is equal and what is not. The trainers take
turns (A B A B ...), each turn in a process of its own, on the same problems in the same updates; its first update warms
up and is not counted. Every turn has its own seed, so that turns do not repeat the same rollouts.

- `update_ratio` is TRL's median seconds an update divided by ours, `update_ratios` the same turn by turn,
  `rollout_ratio` for sampling alone, `peak_memory_ratio` for memory above the loaded model.
- Rollouts are sampled anew by either, so equal work is checked: sampled tokens an update within `--slack` of each other,
  and as many optimizer steps and threads.
- `saliency_overhead` is our update with the saliency reward (the fast probe) divided by ours with the outcome alone,
  `saliency_overheads` the same turn by turn. `quarter_overhead` is that of saliency on a quarter of the groups, and
  `rough_overhead` that of a tolerance of 0.03, each of which teaches the same (`experiments/evidence`, arms i and j);
  `rough_quarter_overhead` that of both together (arm k). Those that begin with `compiled` take the solver's steps in one
  kernel.

What was weighed, so that neither has an advantage that is not its own:

- TRL's defaults that cost it time or mean other work are set aside: gradient checkpointing, bfloat16 autocast, a linear
  schedule, dividing by the group's deviation, the progress bar. It pads to no multiple on a CPU.
- AdamW is fused in both, TRL's default, and as fast as it gets.
- Both log all their figures once an update, none of them to disk, and both compute the entropy.
- TRL's sampling is counted with its tokenizing and decoding, ours with splitting and judging the answers, too.
- Both have imported what torch imports at its first optimizer step before memory is measured.
- TRL samples by `generate`. Its continuous batching runs on a CPU, too, but took over ten times as long in a trial; vLLM
  is for GPUs.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # otherwise loaded within the first optimizer step, as part of the memory of the work
from torch import nn

from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.rewards import OutcomeReward, SaliencyReward
from experiments.benchmarks.memory import peak_mib
from experiments.benchmarks.trainers import Setting, Update, atmanrl_trainer, trl_trainer

LR = 1e-6
SALIENCY = {
    "saliency": (0.007, 1.0, False), "rough": (0.03, 1.0, False), "quarter": (0.007, 0.25, False),
    "rough_quarter": (0.03, 0.25, False), "compiled": (0.007, 1.0, True), "compiled_rough": (0.03, 1.0, True),
    "compiled_rough_quarter": (0.03, 0.25, True),
}  # fmt: skip
"""Turns with the saliency reward: tolerance, share of the groups that is probed, and whether the solver's steps are
compiled."""
TURNS = ("trl", "atmanrl", *SALIENCY)


def measure(who: str, policy: str, updates: int, seed: int) -> dict[str, Any]:
    """One turn: seconds of each update and of its sampling, tokens sampled, optimizer steps, peak memory.

    The first update is left out of the lists.
    """
    ended: list[float] = []
    reports: list[Update] = []
    steps = 0

    def watch(update: Update) -> None:
        ended.append(time.perf_counter())
        reports.append(update)

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)
        made.register_step_post_hook(count)
        return made

    setting = Setting(policy, adamw, updates, seed)
    with tempfile.TemporaryDirectory() as folder:
        if who == "trl":
            train = trl_trainer(setting, folder, watch)
        elif who == "atmanrl":
            train = atmanrl_trainer(setting, folder, watch)
        else:
            tolerance, share, compiled = SALIENCY[who]
            probe = MaskProbe(solver=AdaptiveSolver(tolerance, compiled=compiled))
            saliency = SaliencyReward(10.0, probe, share=share)
            train = atmanrl_trainer(setting, folder, watch, {"outcome": OutcomeReward(), "saliency": saliency})
        peak = peak_mib(train)
    return {
        "update_s": [later - earlier for earlier, later in zip(ended[1:], ended[2:], strict=False)],
        "rollout_s": [report.rollout_s for report in reports[2:]],
        "tokens": [report.tokens for report in reports[2:]],
        "optimizer_steps": steps / updates,
        "threads": torch.get_num_threads(),
        "peak_mib": peak,
    }


def child(who: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """A turn in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.grpo_vs_trl", "--turn", who, "--seed", str(seed)]
    options = ["--policy", args.policy, "--updates", str(args.updates)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shown = {key: statistics.median(value) if isinstance(value, list) else value for key, value in found.items()}
    print(who, shown, flush=True)
    return found


def pooled(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """All turns of one trainer."""
    together = {key: [x for each in turns for x in each[key]] for key in ("update_s", "rollout_s", "tokens")}
    return {
        **{f"{key}_median": statistics.median(together[key]) for key in ("update_s", "rollout_s")},
        "update_s_range": [min(together["update_s"]), max(together["update_s"])],
        "tokens_an_update": statistics.mean(together["tokens"]),
        "optimizer_steps": statistics.mean(each["optimizer_steps"] for each in turns),
        "threads": statistics.mean(each["threads"] for each in turns),
        "peak_mib": statistics.median(each["peak_mib"] for each in turns),
        **together,
    }  # fmt: skip


def by_turn(these: list[dict[str, Any]], those: list[dict[str, Any]]) -> list[float]:
    """Seconds an update, these divided by those, turn by turn."""
    medians = ([statistics.median(turn["update_s"]) for turn in turns] for turns in (these, those))
    return [a / b for a, b in zip(*medians, strict=True)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="GRPO updates: ours against TRL's, in turn.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--policy", default="experiments/laptop/policy")
    parser.add_argument("--updates", type=int, default=6, help="updates of a turn, the first of which warms up")
    parser.add_argument("--turns", type=int, default=3, help="turns of each trainer")
    parser.add_argument("--slack", type=float, default=0.1, help="how much the tokens an update may differ")
    parser.add_argument("--without_saliency", action="store_true", help="compare the trainers alone")
    parser.add_argument("--turn", choices=TURNS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(measure(args.turn, args.policy, args.updates, args.seed)))
        return
    salient = () if args.without_saliency else tuple(SALIENCY)
    turns: dict[str, list[dict[str, Any]]] = {who: [] for who in ("trl", "atmanrl", *salient)}
    for seed in range(args.turns):
        for who, done in turns.items():
            done.append(child(who, seed, args))
    results = {who: pooled(done) for who, done in turns.items()}
    theirs, ours = results["trl"], results["atmanrl"]
    tokens = theirs["tokens_an_update"] / ours["tokens_an_update"]
    if any(theirs[key] != ours[key] for key in ("optimizer_steps", "threads")) or abs(tokens - 1) > args.slack:
        raise SystemExit(
            f"the work is not equal: TRL sampled {tokens:.2f} times our tokens, took {theirs['optimizer_steps']} optimizer "
            f"steps an update against {ours['optimizer_steps']}, and had {theirs['threads']} threads against "
            f"{ours['threads']}; run more updates if it is the tokens."
        )
    overheads = {}
    for who in salient:
        overheads[f"{who}_overhead"] = results[who]["update_s_median"] / ours["update_s_median"]
        overheads[f"{who}_overheads"] = by_turn(turns[who], turns["atmanrl"])
    report = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.grpo_vs_trl", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {ours['threads']} threads",
        "versions": {
            "python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers", "trl", "lightning")}
        },
        "policy": args.policy,
        "update_ratio": theirs["update_s_median"] / ours["update_s_median"],
        "update_ratios": by_turn(turns["trl"], turns["atmanrl"]),
        "rollout_ratio": theirs["rollout_s_median"] / ours["rollout_s_median"],
        "peak_memory_ratio": theirs["peak_mib"] / ours["peak_mib"],
        "tokens_ratio": tokens,
        **overheads,
        "trl": theirs,
        "atmanrl": ours,
        **{f"atmanrl_{who}": results[who] for who in salient},
    }  # fmt: skip
    print(json.dumps({key: value for key, value in report.items() if isinstance(value, float)}, indent=2))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
