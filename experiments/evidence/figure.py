"""The picture of the evidence: every seed of every arm.

python -m experiments.evidence.figure summary.json docs/evidence.png
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atmanrl.io.files import atomic_file
from experiments.evidence.arms import ARMS
from experiments.pictures import style

COLOURS = dict(zip(ARMS, [*(f"C{number}" for number in range(10)), "black"], strict=True))


def lengths(axes: Axes, arms: dict[str, Any]) -> None:
    """Length against pass@4 of every arm, a point for each seed and a larger one for their mean."""
    for key, arm in arms.items():
        colour = COLOURS[key]
        lengths, passed = arm["values"]["tokens_per_cot"], arm["values"]["pass_at_4"]
        axes.scatter(lengths["by_seed"], [100 * value for value in passed["by_seed"]], s=12, color=colour, alpha=0.5)
        axes.scatter(lengths["value"], 100 * passed["value"], s=60, color=colour, label=f"{key}  {arm['name']}")
    axes.set_xlabel("tokens / CoT")
    axes.set_ylabel("pass@4 %")
    axes.legend(fontsize=7, frameon=False)


def frontier(axes: Axes, points: list[dict[str, Any]], outcome: dict[str, Any]) -> None:
    """Length against pass@4 over the weights of an arm: its means, every seed, and a's mean."""
    for letter in sorted({point["arm"] for point in points}):
        line = sorted((point for point in points if point["arm"] == letter), key=lambda point: point["multiple"])
        colour = COLOURS[letter]
        means = [[point["values"][name]["value"] for point in line] for name in ("tokens_per_cot", "pass_at_4")]
        axes.plot(means[0], [100 * value for value in means[1]], "-o", color=colour, label=letter)
        for point, length, passed in zip(line, *means, strict=True):
            axes.annotate(
                f"x {point['multiple']:g}", (length, 100 * passed), (5, 4), fontsize=7, textcoords="offset points"
            )
            by_seed = [point["values"][name]["by_seed"] for name in ("tokens_per_cot", "pass_at_4")]
            axes.scatter(by_seed[0], [100 * value for value in by_seed[1]], s=12, color=colour, alpha=0.5)
    if outcome:
        axes.plot(
            outcome["tokens_per_cot"]["value"], 100 * outcome["pass_at_4"]["value"], "*k", markersize=10, label="a"
        )
    axes.set_xlabel("tokens / CoT, by weight")
    axes.set_ylabel("pass@4 %")
    axes.legend(fontsize=7, frameon=False)


def training(axes: Axes, points: list[dict[str, Any]]) -> None:
    """Length against pass@4 in the course of training, on the held-out training problems: the means, and every seed."""
    for letter in sorted({point["arm"] for point in points}):
        line, colour = [point for point in points if point["arm"] == letter], COLOURS[letter]
        for point in line:
            passed = [100 * value for value in point["pass_at_4"]]
            axes.scatter(point["tokens_per_cot"], passed, s=8, color=colour, alpha=0.3)
        means = [[sum(point[name]) / len(point[name]) for point in line] for name in ("tokens_per_cot", "pass_at_4")]
        axes.plot(means[0], [100 * value for value in means[1]], "-o", color=colour, label=letter)
        if letter != "a":
            for point, length, passed in zip(line, *means, strict=True):
                offset = (4, 6) if letter == "d" else (4, -11)
                axes.annotate(str(point["update"]), (length, 100 * passed), offset, fontsize=7, color=colour,
                              textcoords="offset points")  # fmt: skip
    axes.set_xlabel("tokens / CoT after 25 to 100 updates")
    axes.set_ylabel("pass@4 % of held-out training problems")
    axes.legend(fontsize=7, frameon=False)


NAMES = {
    "cir": "causal importance", "early_own_area": "early answering", "flow_necessity": "necessity",
    "reader_accuracy": "reader's accuracy",
}  # fmt: skip
"""What a picture calls the primary measures."""


def contrasts(axes: Axes, primary: dict[str, Any]) -> None:
    """Arm b against d on the primary measures, each in units of its own 95 % half-width."""
    for row, each in enumerate(primary.values()):
        scale = max(each["high"] - each["low"], 1e-12) / 2
        axes.plot([each["low"] / scale, each["high"] / scale], [row, row], color="C1")
        axes.plot(each["difference"] / scale, row, "o", color="C1")
        axes.annotate(f"{each['difference']:+.3f}, p {each['p_holm']:.3f}", (each["high"] / scale, row), (4, 4), fontsize=7,
                      textcoords="offset points")  # fmt: skip
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(primary)), [NAMES.get(name, name) for name in primary])
    axes.set_xlabel("b - d, in half-widths of its 95 % interval")


@style()
def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description="Draw the evidence: all seeds, and b against d.")
    parser.add_argument("summary", type=Path, help="what `summarise --json` wrote")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    summary = json.loads(options.summary.read_text())
    points = [point for point in summary["frontier"]["points"] if point["values"]]
    tried = len({point["multiple"] for point in points}) > 1
    logged = summary["training"]["points"]
    panels = [partial(lengths, arms=summary["arms"])]
    if summary["primary"]:
        panels.append(partial(contrasts, primary=summary["primary"]))
    if logged:
        panels.append(partial(training, points=logged))
    if tried:
        panels.append(partial(frontier, points=points, outcome=summary["arms"].get("a", {}).get("values", {})))
    columns = 2 if len(panels) == 4 else len(panels)
    rows = len(panels) // columns
    figure = Figure(figsize=(6 * columns, 4.5 * rows), layout="constrained")
    for draw, where in zip(panels, figure.subplots(rows, columns, squeeze=False).flat, strict=True):
        draw(where)
    with atomic_file(options.out) as temporary:
        figure.savefig(temporary, format=options.out.suffix.lstrip("."), dpi=150, metadata={})


if __name__ == "__main__":
    main()
