"""Values of arms with their intervals, and how arms differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atmanrl.report.intervals import interval
from experiments.evidence.arms import Arm
from experiments.evidence.bootstrap import Floats, Ratio, p_value
from experiments.evidence.results import measures, table1

RELATIVE = ("tokens_per_cot", "numbers_pct", "stop_words_pct", "symbols_pct")
"""Compared by their relative change in per cent; all else by differences."""
UNDEFINED = (math.nan, math.nan)
"""The interval of a value that some draw does not define."""


def described(ratio: Ratio) -> dict[str, Any]:
    """A value with its interval and the values of its seeds."""
    low, high = interval(ratio.resampled) or UNDEFINED
    return {"value": ratio.value(), "low": low, "high": high, "by_seed": ratio.by_seed()}


def difference(name: str, ratio: Ratio, other: Ratio) -> dict[str, Any]:
    """How a value differs from another arm's, over the seeds that both have.

    Returns:
        The difference (a relative change in per cent for those of `RELATIVE`), its 95 % interval, the one-sided 95 % lower
        bound, and a two-sided p.
    """
    seeds = min(len(ratio.above), len(other.above))
    ours, theirs = ratio.first(seeds), other.first(seeds)

    def compared(value: Any, reference: Any) -> Any:
        return 100 * (value / reference - 1) if name in RELATIVE else value - reference

    differences: Floats = compared(ours.resampled, theirs.resampled)
    low, high = interval(differences) or UNDEFINED
    return {
        "difference": compared(ours.value(), theirs.value()), "low": low, "high": high, "seeds": seeds,
        "lower_one_sided": float(np.nanpercentile(differences, 5)), "p": p_value(differences),
    }  # fmt: skip


def compared(arms: Iterable[Arm], references: Sequence[str], results: Path) -> dict[str, Any]:
    """The values of the arms that were tested, by key, with their differences from some of them.

    Args:
        arms: in the order of tables.
        references: keys of the arms that the others are compared with.
        results: the folder of the raw results.
    """
    described_arms: dict[str, Any] = {}
    values: dict[str, dict[str, Ratio]] = {}
    for arm in arms:
        (tested, columns), (measured, more) = table1(arm, results), measures(arm, results)
        if not tested:
            continue
        values[arm.key] = columns | more
        described_arms[arm.key] = {
            "name": arm.name, "seeds": tested, "measured_seeds": measured,
            "values": {name: described(ratio) for name, ratio in values[arm.key].items()},
        }  # fmt: skip
    for key, described_arm in described_arms.items():
        for reference in references:
            if reference in values and key != reference:
                described_arm[f"against_{reference}"] = {
                    name: difference(name, ratio, values[reference][name])
                    for name, ratio in values[key].items()
                    if name in values[reference]
                }
    return described_arms
