"""Tables of a run of `gpu`, `cpu` or `two_cores`, with the composition of the stored reasonings.

python -m experiments.real.summarise experiments/real/results/two_cores.json [--pipeline en_core_web_sm]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.real import differences
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
CURVE = (
    "accuracy", "cot/mean_length", "cot/numbers_pct", "cot/stop_words_pct", "cot/symbols_pct", "rewards/saliency/mean",
    "step_time",
)  # fmt: skip
"""Of what is logged of an update, what the table of the curves has."""
BLOCK = 5
"""Updates that a row of the curves is the mean of: one update is a handful of problems."""


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


def blocks(curve: Sequence[dict[str, float]]) -> list[tuple[str, list[float | None]]]:
    """Return the means of a curve over `BLOCK` updates at a time, with the numbers of the updates: `6-10`."""
    rows: list[tuple[str, list[float | None]]] = []
    for start in range(0, len(curve), BLOCK):
        part = curve[start : start + BLOCK]
        logged = [[each[key] for each in part if each.get(key) is not None] for key in CURVE]
        means = [float(np.mean(values)) if values else None for values in logged]
        rows.append((f"{part[0]['update']}-{part[-1]['update']}", means))
    return rows


def curves(steps: dict[str, Any]) -> list[str]:
    """Return a table of the curves, arm by arm; nothing where no arm has one."""
    rows = [
        f"| {name} | {updates} | " + " | ".join("" if mean is None else f"{mean:.3g}" for mean in means) + " |"
        for name, step in steps.items()
        for updates, means in blocks(step.get("curve", []))
    ]
    head = ["| | updates | " + " | ".join(CURVE) + " |", "|---" * (len(CURVE) + 2) + "|"]
    return ["", *head, *rows] if rows else []


def solver_table(solvers: dict[str, Any]) -> list[str]:
    """Return the table of the instrument; nothing where it was not part of the run."""
    lines = ["| solver | " + " | ".join(SOLVER_COLUMNS) + " |", "|---" * (len(SOLVER_COLUMNS) + 1) + "|"]
    for name, figures in solvers.items():
        cells = ["" if figures[key] is None else f"{figures[key]:.5g}" for key in SOLVER_COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""] if solvers else []


def arm_table(runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the table of the arms; nothing where none was tested."""
    if not runs:
        return []
    keys = dict.fromkeys(key for each in runs.values() for run in each for key in run)
    head = "| | " + " | ".join(f"{arm} ({len(each)})" for arm, each in runs.items()) + " |"
    rows = [
        f"| {key} | " + " | ".join(cell([run.get(key) for run in each]) for each in runs.values()) + " |"
        for key in keys
    ]
    return [head, "|---" * (len(runs) + 1) + "|", *rows]


def tables(results: dict[str, Any], composed: dict[str, dict[str, float]]) -> str:
    """Return the tables in Markdown."""
    took = f", {results['seconds']} s" if "seconds" in results else ""
    steps, lines = results["steps"], [f"{results['device']}, {results['date']}{took}", ""]
    lines += solver_table(steps.get("instrument", {}).get("figures", {}).get("solvers", {}))
    if chosen := steps.get("warm_start", {}).get("figures", {}).get("chosen"):
        lines += [f"Right on held-out training problems after the warm start: {chosen['accuracy']}; "
                  f"trained on {chosen['task']}.", ""]  # fmt: skip
    return "\n".join([*lines, *arm_table(columns(steps, composed)), *curves(steps)])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Print the tables of a run of experiments.real.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--pipeline", help="a spaCy pipeline for the composition; lexical rules by default")
    args = parser.parse_args()
    texts = args.results.with_suffix(".eval.jsonl")
    composed = compositions(texts, args.pipeline) if texts.exists() else {}
    compared = differences.table(texts) if texts.exists() else []
    print("\n".join([tables(json.loads(args.results.read_text()), composed), *compared]))


if __name__ == "__main__":
    main()
