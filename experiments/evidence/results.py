"""The raw results of the evidence, read as values by arm, seed and problem."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evidence.arms import EVERY, Arm
from experiments.evidence.bootstrap import Floats, Ratio

TABLE1 = ("tokens_per_cot", "numbers_pct", "stop_words_pct", "symbols_pct", "pass_at_1", "pass_at_4")
TESTED, TUNED = "counts.csv.gz", "tuning_counts.csv.gz"
"""The words of a test's completions, and of those on the tuning problems."""
_SHARES = {"numbers_pct": "numbers", "stop_words_pct": "stop_words", "symbols_pct": "symbols"}


class ResultsError(ValueError):
    """Raw results that do not fit together; the message names the file."""


def seeds_of(arm: Arm, results: Path, file: str) -> list[int]:
    """The seeds of an arm whose results hold a file."""
    return [seed for seed in range(arm.seeds) if (results / f"{arm.key}-{seed}" / file).exists()]


def table1(arm: Arm, results: Path, file: str = TESTED) -> tuple[list[int], dict[str, Ratio]]:
    """The columns of Table 1 of an arm.

    Args:
        arm: whose results are read.
        results: the folder of the raw results.
        file: `TESTED` or `TUNED`.

    Returns:
        The seeds that were tested, and each column's values; in the units of `atmanrl table`'s JSON (per cent of words,
        shares of problems).

    Raises:
        ResultsError: two seeds were tested on different problems.
    """
    seeds = seeds_of(arm, results, file)
    rows: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in TABLE1}
    first: list[str] | None = None
    for seed in seeds:
        path = results / f"{arm.key}-{seed}" / file
        rollouts = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
        problems = sorted({rollout["problem_id"] for rollout in rollouts})
        if first is not None and problems != first:
            raise ResultsError(f"{path} is of other problems than the arm's first seed: test it again.")
        first = problems
        place = {problem: number for number, problem in enumerate(problems)}
        where = np.array([place[rollout["problem_id"]] for rollout in rollouts])
        sums = {
            name: np.bincount(where, [float(rollout[name]) for rollout in rollouts], len(problems)).astype(float)
            for name in ("correct", "cot_tokens", "words", *_SHARES.values())
        }
        samples, ones = np.bincount(where, minlength=len(problems)).astype(float), np.ones(len(problems))
        rows["tokens_per_cot"].append((sums["cot_tokens"], samples))
        rows["pass_at_1"].append((sums["correct"] / samples, ones))
        rows["pass_at_4"].append(((sums["correct"] > 0).astype(float), ones))
        for name, counted in _SHARES.items():
            rows[name].append((100 * sums[counted], sums["words"]))
    return seeds, {name: _ratio(values) for name, values in rows.items() if values}


def measures(arm: Arm, results: Path) -> tuple[list[int], dict[str, Ratio]]:
    """The measures apart from the reward of an arm, by problem; a rollout without a value is left out of that mean."""
    seeds = seeds_of(arm, results, "measures.json.gz")
    read = [_measured(results / f"{arm.key}-{seed}" / "measures.json.gz") for seed in seeds]
    problems = sorted({problem for rows in read for problem in rows})
    names = sorted({name for rows in read for row in rows.values() for name in row})
    values: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in names}
    for rows in read:
        for name in names:
            column = np.array([_number(rows.get(problem, {}).get(name)) for problem in problems])
            known = np.isfinite(column)
            values[name].append((np.where(known, column, 0.0), known.astype(float)))
    return seeds, {name: _ratio(columns) for name, columns in values.items()}


def records(results: Path) -> Iterator[dict[str, Any]]:
    """What the queue noted of each job: commands, versions, seconds."""
    for arm in EVERY.values():
        for seed in seeds_of(arm, results, "record.json"):
            yield json.loads((results / f"{arm.key}-{seed}" / "record.json").read_text())


def _measured(path: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads(gzip.decompress(path.read_bytes()))["rows"]
    skipped = ("problem_id", "sample", "correct", "tokens_per_cot")  # the last two are of Table 1, over all samples
    return {row["problem_id"]: {k: v for k, v in row.items() if k not in skipped} for row in rows if row["sample"] == 0}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _ratio(values: list[tuple[Floats, Floats]]) -> Ratio:
    return Ratio(np.stack([above for above, _ in values]), np.stack([below for _, below in values]))
