"""Differences between arms on the same test problems, with intervals: problems are paired, and drawn with replacement."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atmanrl.report import intervals

BEFORE, OUTCOME, SALIENCY = "before", "outcome", "saliency"
COMPARED = {"right": "pass@1", "cot_tokens": "tokens of the reasoning"}
"""What is compared, by its key in a stored completion."""
DRAWS = 10_000
Means = dict[str, dict[str, dict[str, float]]]
"""Of each arm and key, the mean over its completions of each problem."""


def means(path: Path) -> Means:
    """Return the means over the completions of each problem, from a file of stored completions."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for key in COMPARED:
            by_problem = values.setdefault(row["arm"], {}).setdefault(key, defaultdict(list))
            by_problem[row["problem_id"]].append(float(row[key]))
    return {
        arm: {
            key: {problem: float(np.mean(each)) for problem, each in by_problem.items()}
            for key, by_problem in keys.items()
        }
        for arm, keys in values.items()
    }


def pairs(arms: Means) -> Iterator[tuple[str, str]]:
    """Yield the arms to compare: each with the warm start, and saliency with outcome alone on the same seed."""
    trained = [arm for arm in arms if arm != BEFORE]
    if BEFORE in arms:
        yield from ((arm, BEFORE) for arm in trained)
    yield from (
        (arm, other) for arm in trained if (other := arm.replace(SALIENCY, OUTCOME)) != arm and other in trained
    )


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean over problems, which are drawn with replacement by the seed 0."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (DRAWS, len(differences)))
    known = intervals.interval(differences[drawn].mean(axis=1))
    assert known is not None  # every problem has its values in both arms
    return known


def table(path: Path) -> list[str]:
    """Return a table of the differences in Markdown; nothing where there are no two arms."""
    arms, rows = means(path), []
    for arm, other in pairs(arms):
        cells = []
        for key in COMPARED:
            problems = sorted(arms[arm][key].keys() & arms[other][key].keys())
            differences = np.array([arms[arm][key][each] - arms[other][key][each] for each in problems])
            low, high = interval(differences)
            cells.append(f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append(f"| {arm} - {other} | " + " | ".join(cells) + " |")
    head = ["| | " + " | ".join(COMPARED.values()) + " |", "|---" * (len(COMPARED) + 1) + "|"]
    return ["", *head, *rows] if rows else []
