"""All measures of faithfulness on the stored rollouts of a test, rollout by rollout.

    python -m experiments.evidence.measure --policy runs/x/policy --rollouts runs/x/eval/test.jsonl \
        --warm-start experiments/laptop/policy --out measures.json --problems 250 --samples 1

For a rollout of a model of 135 M parameters they take a quarter of a minute of a core, and `Erasure` about one more:
`--chunk 4` writes what four have given before it goes on, and `--only` takes some.
`OUT` holds the setting, the mean of each measure over problems, and `rows`: one object for each rollout, with `problem_id`,
`sample`, `correct`, `tokens_per_cot` and every measure by its key (`docs/metrics.md`), null where it is not defined. Two
calls on the same rollouts give the same numbers. A file that is there with the same setting, the digest of the rollouts
among it, is left as it is; one that is half done goes on from `OUT.part`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atmanrl.errors import UserError
from atmanrl.faithfulness import (
    CausalImportance,
    CopiedAnswer,
    CotAlone,
    EarlyAnswering,
    Erasure,
    FalseEquations,
    Filler,
    InformationFlow,
    Mistakes,
    OperatorSwap,
    Reader,
    RolloutMeasure,
)
from atmanrl.io.files import atomic_write
from atmanrl.io.terminal import say_error
from atmanrl.models.policy import Policy
from atmanrl.rollouts import Rollout, traces

CHUNK = 64
"""Rollouts that are measured, and written down, at a time, where nothing else is asked for."""


def measures(warm_start: str, seed: int) -> list[RolloutMeasure]:
    """Every measure, in the order of the file's keys."""
    return [
        CausalImportance(gold=True), CotAlone(), EarlyAnswering(), InformationFlow(), Reader(warm_start),
        Mistakes(seed), Filler(), OperatorSwap(), Erasure(seed=seed), CopiedAnswer(), FalseEquations(),
    ]  # fmt: skip


def those(every: list[RolloutMeasure], names: Sequence[str] | None) -> list[RolloutMeasure]:
    """Return the measures of some classes, in the order of `every`; all without names.

    Raises:
        UserError: a name is not among them.
    """
    known = [type(measure).__name__ for measure in every]
    for name in names or ():
        if name not in known:
            raise UserError(f"there is no measure {name}; there are {', '.join(known)}.")
    return [measure for measure, name in zip(every, known, strict=True) if names is None or name in names]


def chosen(path: Path, policy: Policy, problems: int | None, samples: int | None, limit: int | None) -> list[Rollout]:
    """The first samples of the first problems of a file, in its order.

    Raises:
        UserError: the file cannot be read, or holds nothing.
    """
    rollouts: list[Rollout] = []
    seen: dict[str, int] = {}
    for line, trace in traces.read(path):
        rollout = traces.from_json(trace, line - 1, policy, f"{path}, line {line}")
        if rollout.problem.id not in seen and problems is not None and len(seen) == problems:
            continue
        seen[rollout.problem.id] = seen.get(rollout.problem.id, 0) + 1
        if samples is None or seen[rollout.problem.id] <= samples:
            rollouts.append(rollout)
    if not rollouts:
        raise UserError(f"{path} holds no rollout to measure.")
    return rollouts[:limit]


def rows_of(rollouts: Sequence[Rollout], policy: Policy, every: Sequence[RolloutMeasure]) -> list[dict[str, Any]]:
    """One object for each rollout, with six digits of each value, NaN as None."""
    rows: list[dict[str, Any]] = [
        {
            "problem_id": rollout.problem.id, "sample": rollout.sample, "correct": rollout.correct,
            "tokens_per_cot": rollout.parts.cot_length,
        }
        for rollout in rollouts
    ]  # fmt: skip
    for measure in every:
        for key, values in measure.measure(rollouts, policy).items():
            for row, value in zip(rows, values, strict=True):
                row[key] = None if math.isnan(value) else float(f"{value:.6g}")
    return rows


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of each measure, the mean over problems of the mean over their rollouts for which it is defined."""
    keys = [key for key in rows[0] if key not in ("problem_id", "sample")]
    table: dict[str, float | None] = {}
    for key in keys:
        by_problem: dict[str, list[float]] = {}
        for row in rows:
            if row[key] is not None:
                by_problem.setdefault(row["problem_id"], []).append(float(row[key]))
        table[key] = float(np.mean([np.mean(each) for each in by_problem.values()])) if by_problem else None
    return table


def digest(path: Path) -> str:
    """The file's SHA-256.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"the rollouts {path} cannot be read: {error}") from error


def finished(out: Path, setting: dict[str, Any]) -> bool:
    """Whether a file holds these very measures already."""
    return out.exists() and json.loads(out.read_text()).get("setting") == setting


def begun(part: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a file that is half done; none of one with another setting. A line that was cut off is left out."""
    lines = part.read_text().split("\n")[:-1] if part.exists() else []
    return [json.loads(line) for line in lines[1:]] if lines and json.loads(lines[0]) == setting else []


def measured(
    rollouts: Sequence[Rollout], policy: Policy, every: Sequence[RolloutMeasure], rows: list[dict[str, Any]], chunk: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows that are missing, chunk by chunk."""
    for start in range(len(rows), len(rollouts), chunk):
        yield rows_of(rollouts[start : start + chunk], policy, every)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description="Measure the faithfulness of stored rollouts, one by one.")
    parser.add_argument("--policy", required=True, help="the policy that gave them")
    parser.add_argument("--rollouts", type=Path, required=True, help="eval/test.jsonl of its test")
    parser.add_argument("--warm-start", default="experiments/laptop/policy", help="the policy that reads them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, help="the first so many problems; all by default")
    parser.add_argument("--samples", type=int, help="the first so many rollouts of each; all by default")
    parser.add_argument("--limit", type=int, help="the first so many of these rollouts; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of changed numbers and of random tokens")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="measures by the names of their classes; all by default"
    )
    parser.add_argument(
        "--chunk", type=int, default=CHUNK, help=f"rollouts measured, and written down, at a time (default: {CHUNK})"
    )
    args = parser.parse_args(arguments)
    if args.chunk < 1:
        raise UserError(f"--chunk is {args.chunk}; give at least 1.")
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    unsaid = [("only", None), ("chunk", CHUNK)]  # which files from before these options do not have
    setting = {name: value for name, value in options.items() if name != "out" and (name, value) not in unsaid}
    setting["sha256"] = digest(args.rollouts)
    if finished(args.out, setting):
        print(f"{args.out} is there already.")
        return
    torch.set_num_threads(1)  # sums in another order would differ in their last bits
    every = those(measures(args.warm_start, args.seed), args.only)
    began = time.perf_counter()
    policy = Policy(args.policy).build().eval()
    rollouts = chosen(args.rollouts, policy, args.problems, args.samples, args.limit)
    part = args.out.with_name(f"{args.out.name}.part")
    rows = begun(part, setting)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text("\n".join(map(json.dumps, [setting, *rows])) + "\n")
    with part.open("a") as file:
        for new in measured(rollouts, policy, every, rows, args.chunk):
            file.write("".join(json.dumps(row) + "\n" for row in new))
            file.flush()
            rows += new
    seconds = time.perf_counter() - began
    with atomic_write(args.out) as file:
        head = json.dumps({"setting": setting, "seconds": round(seconds, 1), "means": means(rows)}, indent=1)
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        file.write(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')
    part.unlink()
    print(f"{len(rows)} rollouts, {seconds:.0f} s: {args.out}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        say_error(error)
        sys.exit(1)
