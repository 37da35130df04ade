"""The README's picture: what the two runs of the demo did over training.

python -m experiments.laptop.figure --demo runs/demo --out docs/laptop.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.pictures import style

PANELS = {
    "cot/mean_length": "tokens per chain of thought",
    "cot/numbers_pct": "numbers, % of its tokens",
    "cot/stop_words_pct": "stop words, % of its tokens",
    "accuracy": "share of right answers",
}
RUNS = {"atmanrl": ("outcome + saliency", "#c0392b"), "baseline": ("outcome alone", "#7f8c8d")}
WINDOW = 5


def series(run: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and a running mean over `WINDOW` of them."""
    with (run / "metrics.csv").open(newline="") as file:
        values = np.array([float(row[name]) for row in csv.DictReader(file) if row.get(name)])
    window = min(WINDOW, len(values))
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    return np.arange(window, len(values) + 1), smooth


@style()
def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description="Draw the two runs of the laptop demo over training.")
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/laptop.png"))
    args = parser.parse_args()
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for run, (label, colour) in RUNS.items():
            axis.plot(*series(args.demo / run, name), color=colour, label=label)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("update")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(f"{args.out}: running means over {WINDOW} updates")


if __name__ == "__main__":
    main()
