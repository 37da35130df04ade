"""The results as a table in Markdown."""

from __future__ import annotations

from typing import Any

from experiments.benchmarks.attribution.methods import REFERENCE
from experiments.benchmarks.attribution.scoring import MEASURES


def table(results: dict[str, Any]) -> str:
    """Return a row for each method, the best value of each column in bold, and what the default loses to beneath.

    Args:
        results: as `__main__` writes them.
    """
    methods = results["methods"]
    ran = {name: method for name, method in methods.items() if "measures" in method}
    best = {
        key: (max if measure.higher else min)(method["measures"][key]["value"] for method in ran.values())
        for key, measure in MEASURES.items()
    }
    heads = [f"{m.title} {'↑' if m.higher else '↓'}" for m in MEASURES.values()]
    lines = [f"| method | {' | '.join(heads)} | s a trace | MiB |", "|---" * (len(heads) + 3) + "|"]
    for name, method in methods.items():
        if name not in ran:
            lines.append(f"| {method['title']} | skipped: {method['skipped']}{' |' * (len(heads) + 2)}")
            continue
        cells = []
        for key in MEASURES:
            value = method["measures"][key]
            text = f"{value['value']:.3f}"
            half = (value["high"] - value["low"]) / 2
            cells.append(f"{'**' + text + '**' if value['value'] == best[key] else text} ±{half:.3f}")
        cost = [f"{method['processor_seconds_a_trace']:.2g}", f"{method['peak_mib']:.0f}"]
        lines.append(f"| {method['title']} | {' | '.join([*cells, *cost])} |")
    titles = {name: method["title"] for name, method in methods.items()}
    if not results["comparisons"]:
        return "\n".join(lines)
    lines += ["", f"{titles[REFERENCE]}, the default, at the 5 % level of all comparisons:", ""]
    for key, outcome in results["outcomes"].items():
        parts = [
            f"{verb} {', '.join(titles[name] for name in outcome[field])}"
            for verb, field in (("loses to", "loses_to"), ("beats", "beats"))
            if outcome[field]
        ]
        lines.append(f"- {MEASURES[key].title}: {'; '.join(parts) or 'no difference'}.")
    return "\n".join(lines)
