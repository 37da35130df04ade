"""Length against pass@4 in the course of training, and the update that the held-out training problems choose."""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evidence.arms import ARMS, EARLIER, Arm
from experiments.evidence.compare import described, difference
from experiments.evidence.results import TABLE1, seeds_of, table1

LOG = "metrics.csv.gz"
LETTERS = ("a", "b", "d", "h")
CHOSEN = ("b", "d")
SHOWN = ("tokens_per_cot", "pass_at_4")


def training(results: Path) -> dict[str, Any]:
    """What was logged of the held-out training problems, and the tests of earlier updates.

    Args:
        results: the folder of the raw results.

    Returns:
        `points`: arm, update, and by seed the length and the pass@4 of the held-out training problems. `chosen`: of arms b
        and d the update with the shortest reasoning whose mean pass@4 is not below that of a's last one, or None. `tested`:
        each earlier update that was tested, with its values on the test problems and their differences from a's last update.
    """
    points = [point for letter in LETTERS for point in _logged(ARMS[letter], results)]
    last = [point for point in points if point["arm"] == "a"][-1:]
    chosen = {letter: choice([p for p in points if p["arm"] == letter], last[0]) for letter in CHOSEN} if last else {}
    outcome = table1(ARMS["a"], results)[1]
    tested = {}
    for arm in EARLIER.values():
        seeds, values = table1(arm, results)
        if seeds and outcome:
            tested[arm.key] = {
                "name": arm.name, "seeds": seeds, "values": {name: described(values[name]) for name in TABLE1},
                "against_a": {name: difference(name, values[name], outcome[name]) for name in TABLE1},
            }  # fmt: skip
    return {"points": points, "chosen": chosen, "tested": tested}


def choice(points: list[dict[str, Any]], reference: dict[str, Any]) -> int | None:
    """The update with the shortest reasoning whose pass@4, in the mean over seeds, is not below a reference's."""
    least = np.mean(reference["pass_at_4"]) - 1e-6  # the log is in single precision
    kept = [point for point in points if np.mean(point["pass_at_4"]) >= least]
    return min(kept, key=lambda point: np.mean(point["tokens_per_cot"]))["update"] if kept else None


def _logged(arm: Arm, results: Path) -> list[dict[str, Any]]:
    """An arm's evaluations during training: for each update, the values of all seeds."""
    by_update: dict[int, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in SHOWN})
    for seed in seeds_of(arm, results, LOG):
        text = gzip.decompress((results / f"{arm.key}-{seed}" / LOG).read_bytes()).decode()
        for row in csv.DictReader(io.StringIO(text)):
            if row.get("val/pass_at_4"):
                for name in SHOWN:
                    by_update[int(row["step"]) + 1][name].append(float(row[f"val/{name}"]))
    return [{"arm": arm.key, "update": update, **values} for update, values in sorted(by_update.items())]
