"""What a pass costs by itself: is a short sequence better padded to a long one, or read in a pass of its own?

    OMP_NUM_THREADS=1 python -m experiments.benchmarks.passes --json experiments/benchmarks/results/passes.json
    OMP_NUM_THREADS=1 python -m experiments.benchmarks.passes --model models/SmolLM2-135M-Instruct --limit 16 \
        --traces experiments/real/results/cpu.traces.jsonl --json experiments/benchmarks/results/passes_smollm2.json

One gradient of every mask, batch by batch, divided by `cheapest_batches` as if a pass by itself cost so many tokens: each of
`--tokens`, and what `pass_tokens` says of the model (`own`). In turn, `--repeats` times; of each the least processor time,
and its ratio to that of 512 tokens, which stood for every model before.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.probe.attention import attention_hook, choose_backend
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import traces
from experiments.benchmarks.probe import rollouts

REFERENCE = 512
SCALE, INIT_VALUE = 10.0, -0.4
"""The paper's; the time does not depend on them."""


def groups(policy: Policy, path: Path | None, limit: int | None, size: int) -> list[list[Target]]:
    """Return targets in batches of `size`: a file's first traces, or rollouts of the laptop task."""
    if path is None:
        every = [r for r in rollouts(policy).rollouts if r.can_be_probed]
    else:
        every = [traces.from_json(each, line - 1, policy, f"{path}, line {line}") for line, each in traces.read(path)]
    targets = [target(rollout, policy.tokenizer) for rollout in every[:limit]]
    return [targets[start : start + size] for start in range(0, len(targets), size)]


def seconds(objectives: Sequence[Objective], tokens: float) -> float:
    """Return the processor seconds of one gradient of all masks, if a pass by itself is said to cost so many tokens."""
    began = time.process_time()
    for objective in objectives:
        objective.pass_tokens = tokens
        objective.evaluate(objective.filled(INIT_VALUE))
    return time.process_time() - began


def measured(
    policy: Policy, batches: Sequence[Sequence[Target]], tokens: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Return the least processor seconds and their ratio to the reference's, by the number of tokens."""
    took: dict[str, list[float]] = {}
    with frozen(policy.model), attention_hook(policy.model, choose_backend(policy.model)):
        objectives = [Objective(policy.model, batch, SCALE, policy.pad_id, 1 << 30) for batch in batches]
        own = objectives[0].pass_tokens
        weights = {f"{number}": float(number) for number in sorted({*tokens, REFERENCE})} | {"own": own}
        for _ in range(repeats):
            for name, number in weights.items():
                took.setdefault(name, []).append(seconds(objectives, number))
    reference = min(took[f"{REFERENCE}"])
    columns = {
        name: {"seconds": round(min(each), 3), "ratio": round(min(each) / reference, 3)} for name, each in took.items()
    }
    return {"own": round(own, 1), "targets": sum(map(len, batches)), "tokens": columns}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What a pass costs by itself, in tokens.")
    parser.add_argument("--model", default="experiments/laptop/policy", help="a model's folder")
    parser.add_argument("--traces", type=Path, help="its traces; without it, rollouts of the laptop task are sampled")
    parser.add_argument("--limit", type=int, help="the first so many traces; all by default")
    parser.add_argument("--batch", type=int, default=4, help="traces that are probed together (default: 4)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 128, REFERENCE])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(arguments)
    policy = Policy(args.model).build().eval()
    batches = groups(policy, args.traces, args.limit, args.batch)
    command = shlex.join(["python", "-m", "experiments.benchmarks.passes", *(arguments or sys.argv[1:])])
    head = {"command": command, "machine": platform.machine(), "torch": version("torch"), "model": args.model}
    results = {**head, **measured(policy, batches, args.tokens, args.repeats)}
    with atomic_write(args.json) as file:
        file.write(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
