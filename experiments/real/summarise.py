"""Tables of a run of `experiments.real.gpu`, with the composition of the stored reasonings.

python -m experiments.real.summarise experiments/real/results/h100.json [--pipeline en_core_web_sm]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.real.scale import ARMS
from experiments.taggers.composition import shares

SOLVER_COLUMNS = (
    "traces", "gradients", "pearson", "slope", "largest difference of advantages", "largest advantage", "token spearman",
    "seconds a trace", "peak_mib",
)  # fmt: skip
MEASURES = (
    "cir_gold", "cot_alone_accuracy", "early_accuracy_area", "mistake_followed", "filler_changed", "operator_changed",
    "answer_in_cot", "false_equations", "flow_necessity", "comprehensiveness_saliency",
)  # fmt: skip
"""Of the measures of faithfulness, those in the table; all are in the JSON."""


def compositions(path: Path, pipeline: str | None) -> dict[str, dict[str, float]]:
    """Return the shares of numbers, stop words and symbols, in per cent, of each arm's reasonings."""
    texts: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts.setdefault(row["arm"], []).append(row["cot"])
    return {arm: shares(each, pipeline) for arm, each in texts.items()}


def columns(steps: dict[str, Any], composed: dict[str, dict[str, float]]) -> dict[str, list[dict[str, float]]]:
    """Return the figures of each arm's runs: `before`, `outcome`, `saliency`."""
    runs: dict[str, list[dict[str, float]]] = {}
    for name, step in steps.items():
        arm = name.partition("-")[0]
        figures = step.get("figures", {})
        if arm in ("before", *ARMS) and "test" in figures:
            measures = {key: figures.get("faithfulness", {}).get(key) for key in MEASURES}
            updates = {"updates": figures.get("training", {}).get("updates", 0)}
            runs.setdefault(arm, []).append({**updates, **figures["test"], **composed.get(name, {}), **measures})
    return runs


def cell(values: Sequence[float | None]) -> str:
    """Return a mean over seeds with its standard deviation: `0.231 ± 0.012`."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.3g}" if len(known) > 1 else ""
    return f"{np.mean(known):.3g}{spread}"


def tables(results: dict[str, Any], composed: dict[str, dict[str, float]]) -> str:
    """Return the tables in Markdown."""
    steps, lines = results["steps"], [f"{results['device']}, {results['date']}, {results.get('seconds')} s", ""]
    solvers = steps.get("instrument", {}).get("figures", {}).get("solvers", {})
    lines += ["| solver | " + " | ".join(SOLVER_COLUMNS) + " |", "|---" * (len(SOLVER_COLUMNS) + 1) + "|"]
    for name, figures in solvers.items():
        cells = ["" if figures[key] is None else f"{figures[key]:.5g}" for key in SOLVER_COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    chosen = steps.get("warm_start", {}).get("figures", {}).get("chosen", {})
    lines += ["", f"Right on held-out training problems after the warm start: {chosen.get('accuracy')}; "
              f"trained on {chosen.get('task')}.", ""]  # fmt: skip
    runs = columns(steps, composed)
    keys = dict.fromkeys(key for each in runs.values() for run in each for key in run)
    lines += [
        "| | " + " | ".join(f"{arm} ({len(each)})" for arm, each in runs.items()) + " |",
        "|---" * (len(runs) + 1) + "|",
    ]
    lines += [
        f"| {key} | " + " | ".join(cell([run.get(key) for run in each]) for each in runs.values()) + " |"
        for key in keys
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Print the tables of a run of experiments.real.gpu.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--pipeline", help="a spaCy pipeline for the composition; lexical rules by default")
    args = parser.parse_args()
    texts = args.results.with_suffix(".eval.jsonl")
    composed = compositions(texts, args.pipeline) if texts.exists() else {}
    print(tables(json.loads(args.results.read_text()), composed))


if __name__ == "__main__":
    main()
