"""Means with intervals over problems, agreement between methods, and where the package's default loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torchmetrics.functional import spearman_corrcoef

from experiments.benchmarks.attribution.methods import REFERENCE
from experiments.benchmarks.attribution.scoring import MEASURES
from experiments.evidence.bootstrap import Floats, Ratio, draws, holm, p_value

LEVEL = 95
Values = Mapping[str, Sequence[float]]
"""The values of one method on every trace, by measure."""


def means(
    values: Values, problems: Sequence[str], correct: Sequence[bool | None]
) -> dict[str, dict[str, float | None]]:
    """Return each measure's mean with its interval, and the means of right and of wrong answers.

    Args:
        values: of B traces.
        problems: `[B]` ids; traces of one problem are drawn together.
        correct: `[B]`.
    """
    summary: dict[str, dict[str, float | None]] = {}
    for measure, numbers in values.items():
        low, high = interval(_drawn(numbers, problems))
        sides = {
            name: [v for v, c in zip(numbers, correct, strict=True) if c is side]
            for name, side in (("right", True), ("wrong", False))
        }
        summary[measure] = {"value": float(np.mean(numbers)), "low": low, "high": high} | {
            name: float(np.mean(side)) if side else None for name, side in sides.items()
        }
    return summary


def comparisons(values: Mapping[str, Values], problems: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by method and measure, how much better `REFERENCE` is on the same traces: below 0 it loses.

    Each has its interval, and a p-value corrected by Holm's method over all of them.
    """
    compared: dict[str, dict[str, dict[str, float]]] = {}
    p_values: dict[str, float] = {}
    for name, others in values.items():
        if name == REFERENCE or REFERENCE not in values:
            continue
        compared[name] = {}
        for key, measure in MEASURES.items():
            sign = 1 if measure.higher else -1
            differences = sign * (np.asarray(values[REFERENCE][key]) - np.asarray(others[key]))
            drawn = _drawn(differences, problems)
            low, high = interval(drawn)
            compared[name][key] = {"difference": float(differences.mean()), "low": low, "high": high}
            p_values[f"{name}/{key}"] = p_value(drawn)
    for place, p in holm(p_values).items():
        name, key = place.split("/")
        compared[name][key]["p"] = p
    return compared


def outcomes(compared: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, list[str]]]:
    """Return, by measure, to which methods `REFERENCE` loses, and which it beats, at the 5 % level of all comparisons."""
    results: dict[str, dict[str, list[str]]] = {key: {"loses_to": [], "beats": []} for key in MEASURES}
    for name, measures in compared.items():
        for key, numbers in measures.items():
            if numbers["p"] < 1 - LEVEL / 100:
                results[key]["loses_to" if numbers["difference"] < 0 else "beats"].append(name)
    return results


def agreement(attributions: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Return the rank correlation (Spearman) of every two methods over a reasoning's tokens, mean over traces."""
    names = list(attributions)
    pairs = list(combinations(range(len(names)), 2))
    matrix = {name: {name: 1.0} for name in names}
    if not pairs:
        return matrix
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    correlations = []
    for of_trace in zip(*attributions.values(), strict=True):
        columns = torch.tensor(of_trace, dtype=torch.float64).T
        correlations.append(spearman_corrcoef(columns[:, first], columns[:, second]).reshape(-1))
    mean = torch.stack(correlations).mean(0).tolist()
    for (a, b), value in zip(pairs, mean, strict=True):
        matrix[names[a]][names[b]] = matrix[names[b]][names[a]] = value
    return matrix


def interval(drawn: Floats) -> tuple[float, float]:
    """Return the percentile interval of some draws."""
    low, high = np.percentile(drawn, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def _drawn(numbers: Any, problems: Sequence[str]) -> Floats:
    """The mean of numbers, one a trace, in draws of problems: the same draws for the same number of problems."""
    places = {problem: place for place, problem in enumerate(dict.fromkeys(problems))}
    above, below = np.zeros((2, 1, len(places)))
    for number, problem in zip(numbers, problems, strict=True):
        above[0, places[problem]] += number
        below[0, places[problem]] += 1
    return Ratio(above, below).drawn(*draws(1, len(places)))
