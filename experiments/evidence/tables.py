"""The analysis as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TITLES = {
    "tokens_per_cot": "tokens / CoT", "numbers_pct": "numbers %", "stop_words_pct": "stop words %",
    "symbols_pct": "symbols %", "pass_at_1": "pass@1 %", "pass_at_4": "pass@4 %",
}  # fmt: skip
IN_PER_CENT = ("pass_at_1", "pass_at_4")


def markdown(summary: dict[str, Any], columns: Sequence[str], primary: Sequence[str]) -> str:
    """Table 1 of all arms, then the measures, then b against d.

    Args:
        summary: as `summarise.summary` gives it.
        columns: of Table 1.
        primary: names of the primary measures.
    """
    arms = summary["arms"]
    measured = sorted({name for arm in arms.values() for name in arm["values"] if name not in columns})
    parts = [
        "## Table 1, all arms", _table(arms, columns),
        "Mean over seeds, with 95 % intervals (hierarchical bootstrap over seeds and problems).",
    ]  # fmt: skip
    if measured:
        # the points of a curve are in the JSON; a table has their area
        rest = [name for name in measured if name not in primary and "_at_" not in name]
        parts += ["## Measures apart from the reward", _table(arms, [name for name in primary if name in measured])]
        parts += [_transposed(arms, rest)]
    if summary["primary"]:
        rows = [
            [name, *(_signed(each[key]) for key in ("difference", "low", "high")), f"{each['p_holm']:.4f}"]
            for name, each in summary["primary"].items()
        ]
        parts += ["## b against d", _rows(["measure", "difference", "low", "high", "p (Holm)"], rows)]
    if summary["frontier"]["points"]:
        parts += ["## Weights: length against pass@4", *_frontier(summary["frontier"])]
    if summary["training"]["tested"]:
        parts += ["## Length of training", *_training(summary["training"], columns)]
    if summary["second"]:
        parts += ["## Second task: chains of operations", _table(summary["second"], columns)]
        names = sorted({name for arm in summary["second"].values() for name in arm["values"] if name not in columns})
        parts += [_transposed(summary["second"], [name for name in names if "_at_" not in name])] if names else []
    return "\n\n".join(parts) + "\n"


def _frontier(frontier: dict[str, Any]) -> list[str]:
    """A row for each arm and weight, and what the tuning problems choose."""
    rows = []
    for point in frontier["points"]:
        difference, tuned = point["against_a"].get("pass_at_4"), point["tuning"]
        shown = [_cell(name, point["values"].get(name)) for name in ("tokens_per_cot", "pass_at_4")]
        against = [f"{100 * difference[key]:+.1f}" for key in ("difference", "low", "high")] if difference else []
        tuning = [f"{tuned['tokens_per_cot']:.1f}, {100 * tuned['pass_at_4']:.1f}"] if tuned else ["–"]
        rows.append([
            point["arm"], f"{point['multiple']:g}", str(len(point["seeds"])), *shown,
            f"{against[0]} [{against[1]}, {against[2]}]" if against else "–", *tuning,
        ])  # fmt: skip
    head = [
        "arm",
        "weight x",
        "seeds",
        "tokens / CoT",
        "pass@4 %",
        "pass@4 against a, points",
        "tuning: tokens, pass@4 %",
    ]
    chosen = [f"{arm}: {key or 'none keeps pass@4 within 2 points of a'}" for arm, key in frontier["chosen"].items()]
    return [_rows(head, rows), *([f"Chosen on the tuning problems: {'; '.join(chosen)}."] if chosen else [])]


def _training(training: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """What the held-out training problems say after each update, and the tests of earlier updates."""
    logged = [
        [
            point["arm"],
            str(point["update"]),
            f"{_mean(point['tokens_per_cot']):.1f}",
            f"{100 * _mean(point['pass_at_4']):.1f}",
        ]
        for point in training["points"]
    ]
    chosen = [f"{arm}: {update or 'none'}" for arm, update in training["chosen"].items()]
    against = []
    for key, arm in training["tested"].items():
        for name in columns:
            each, factor = arm["against_a"][name], 100 if name in IN_PER_CENT else 1
            shown = [f"{factor * each[bound]:+.1f}" for bound in ("difference", "low", "high", "lower_one_sided")]
            against.append([key, TITLES[name], f"{shown[0]} [{shown[1]}, {shown[2]}]", shown[3]])
    return [
        _rows(["arm", "updates", "tokens / CoT", "pass@4 %"], logged),
        f"Held-out training problems, mean over seeds. Chosen: {'; '.join(chosen)}.",
        _table(training["tested"], columns),
        _rows(["", "test problems, against a", "difference", "lower bound, one-sided"], against),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _table(arms: dict[str, Any], names: Sequence[str]) -> str:
    """A row for each arm."""
    rows = [
        [key, arm["name"], str(len(arm["seeds"])), *(_cell(name, arm["values"].get(name)) for name in names)]
        for key, arm in arms.items()
    ]
    return _rows(["", "rewards", "seeds", *(TITLES.get(name, name) for name in names)], rows)


def _transposed(arms: dict[str, Any], names: Sequence[str]) -> str:
    """A row for each value, for those that are many."""
    rows = [[name, *(_cell(name, arm["values"].get(name)) for arm in arms.values())] for name in names]
    return _rows(["measure", *arms], rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(name: str, value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    factor, digits = (100, 1) if name in IN_PER_CENT else (1, 1 if name in TITLES else 3)
    shown = [f"{factor * value[key]:.{digits}f}" for key in ("value", "low", "high")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}"
