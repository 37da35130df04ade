"""The picture of `grpo_learning.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.pictures import style

TRAINERS = {"trl": ("TRL", "#7f8c8d"), "atmanrl": ("AtManRL", "#c0392b")}
WINDOW = 5


@style(**{"svg.hashsalt": "grpo_learning"})  # the same results, the same file
def draw(results: dict[str, Any], path: Path) -> None:
    """Write PNG and SVG beside the results: a thin line for each seed, a thick one with error bars for their mean."""
    runs, every = results["runs"], results["setting"]["every"]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    held_out, training = figure.subplots(1, 2, sharey=True)
    for who, (label, colour) in TRAINERS.items():
        curves = 100 * np.array([run[who]["accuracy"] for run in runs])
        updates = every * np.arange(curves.shape[1])
        held_out.plot(updates, curves.T, color=colour, alpha=0.3, linewidth=0.8)
        error = curves.std(0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else None
        held_out.errorbar(updates, curves.mean(0), error, color=colour, linewidth=2, capsize=3, label=label)
        learned = 100 * np.array([run[who]["training_accuracy"] for run in runs]).mean(0)
        window = min(WINDOW, len(learned))
        smooth = np.convolve(learned, np.ones(window) / window, mode="valid")
        training.plot(np.arange(window, len(learned) + 1), smooth, color=colour, linewidth=2)
    held_out.set_title(f"held-out problems, {len(runs)} seeds, mean and standard error", fontsize=9)
    training.set_title(f"training rollouts, mean over {WINDOW} updates and the seeds", fontsize=9)
    held_out.set_ylabel("right answers, %")
    for axis in (held_out, training):
        axis.set_xlabel("update")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*held_out.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
