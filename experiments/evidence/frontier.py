"""Length against pass@4 over the weights of a reward, and the weight that the tuning problems choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.evidence.arms import ARMS, FRONTIER, MULTIPLES, Arm
from experiments.evidence.bootstrap import Ratio
from experiments.evidence.compare import described, difference
from experiments.evidence.results import TUNED, table1

LETTERS = ("b", "d")
SHOWN = ("tokens_per_cot", "pass_at_1", "pass_at_4")
MARGIN = 0.02
"""How far below the outcome's pass@4 a chosen setting may lie on the tuning problems."""


def weights(letter: str) -> dict[float, Arm]:
    """The arms of a letter by the multiple of the protocol's weight, rising."""
    tried = {multiple: FRONTIER[f"{letter}{suffix}"] for suffix, multiple in MULTIPLES.items()}
    return dict(sorted({1.0: ARMS[letter], **tried}.items()))


def frontier(results: Path) -> dict[str, Any]:
    """The points of the arms at every weight that was tested, and what is chosen of each arm.

    Args:
        results: the folder of the raw results.

    Returns:
        `points`: each with its key, arm, multiple and seeds, its values on the test problems with intervals, their
        differences from arm a, and the means on the tuning problems (`tuning`, empty unless all are there). `chosen`: for
        each arm whose weights were all tuned, the key of the setting with the shortest reasoning that keeps pass@4 there,
        or None.
        `tuned_outcome`: arm a's means on the tuning problems.
    """
    outcome = table1(ARMS["a"], results)[1]
    tuned_outcome = _tuned(ARMS["a"], results)
    points, chosen = [], {}
    for letter in LETTERS:
        tried = {multiple: _point(arm, letter, multiple, outcome, results) for multiple, arm in weights(letter).items()}
        points += [point for point in tried.values() if point["seeds"]]
        if tuned_outcome and all(point["tuning"] for point in tried.values()):
            chosen[letter] = choice(list(tried.values()), tuned_outcome["pass_at_4"])
    return {"points": points, "chosen": chosen, "tuned_outcome": tuned_outcome}


def choice(points: list[dict[str, Any]], reference: float) -> str | None:
    """The key of the shortest setting whose pass@4 on the tuning problems is at most `MARGIN` below a reference."""
    kept = [point for point in points if point["tuning"]["pass_at_4"] >= reference - MARGIN]
    return min(kept, key=lambda point: point["tuning"]["tokens_per_cot"])["key"] if kept else None


def _point(arm: Arm, letter: str, multiple: float, outcome: dict[str, Ratio], results: Path) -> dict[str, Any]:
    seeds, values = table1(arm, results)
    return {
        "key": arm.key, "arm": letter, "multiple": multiple, "seeds": seeds,
        "values": {name: described(values[name]) for name in SHOWN if name in values},
        "against_a": {
            name: difference(name, values[name], outcome[name]) for name in SHOWN if name in values and name in outcome
        },
        "tuning": _tuned(arm, results),
    }  # fmt: skip


def _tuned(arm: Arm, results: Path) -> dict[str, float]:
    """The means over an arm's tuned seeds on the tuning problems; nothing unless all of them are there."""
    seeds, values = table1(arm, results, TUNED)
    return {name: values[name].value() for name in SHOWN} if len(seeds) == arm.tuned else {}
