"""The analysis of the protocol, from the raw results in the repository, in seconds and without torch.

python -m experiments.evidence.summarise --json summary.json --markdown tables.md
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from atmanrl.io.files import atomic_write
from experiments.evidence.arms import ARMS, SECOND
from experiments.evidence.bootstrap import holm
from experiments.evidence.compare import compared
from experiments.evidence.frontier import frontier
from experiments.evidence.results import TABLE1, records
from experiments.evidence.tables import markdown
from experiments.evidence.training import training

HERE = Path(__file__).parent
PRIMARY = ("cir", "early_own_area", "flow_necessity", "reader_accuracy")
"""The measures of outcome 3, on which b is compared with d."""


def summary(results: Path) -> dict[str, Any]:
    """Everything that the tables and the plots show.

    Args:
        results: a folder as the queue fills it, with a folder for each arm and seed.
    """
    arms = compared(ARMS.values(), ("a", "d"), results)
    second = compared(SECOND.values(), ("ma", "md"), results)
    return {
        **_headline(arms), "primary": _primary(arms), "arms": arms, "frontier": frontier(results),
        "training": training(results), "second": second, "seconds": _seconds(results),
    }  # fmt: skip


def _headline(arms: dict[str, Any]) -> dict[str, Any]:
    """The values of the protocol's outcomes 1 and 2, b against a."""
    if "b" not in arms or "against_a" not in arms["b"]:
        return {}
    changes, values = arms["b"]["against_a"], arms["b"]["values"]
    return {
        "seeds": changes["pass_at_4"]["seeds"], "cot_change_pct": changes["tokens_per_cot"]["difference"],
        "numbers_change_pct": changes["numbers_pct"]["difference"],
        "symbols_change_pct": changes["symbols_pct"]["difference"],
        "stop_words_change_pct": changes["stop_words_pct"]["difference"], "pass_at_1": values["pass_at_1"]["value"],
        "pass_at_4": values["pass_at_4"]["value"], "pass_at_4_diff_lower": changes["pass_at_4"]["lower_one_sided"],
    }  # fmt: skip


def _primary(arms: dict[str, Any]) -> dict[str, Any]:
    """Outcome 3: b against d on the primary measures, with Holm's correction."""
    against = arms.get("b", {}).get("against_d", {})
    primary = {
        name: against[name] for name in PRIMARY if name in against and not math.isnan(against[name]["difference"])
    }
    corrected = holm({name: each["p"] for name, each in primary.items()})
    return {name: {**each, "p_holm": corrected[name]} for name, each in primary.items()}


def _seconds(results: Path) -> dict[str, dict[str, float]]:
    """What each step took in the mean over an arm's seeds; the machine did other work beside."""
    taken: dict[str, dict[str, list[float]]] = {}
    for record in records(results):
        for step, noted in record["steps"].items():
            taken.setdefault(record["arm"], {}).setdefault(step, []).append(noted["seconds"])
    return {arm: {step: float(np.mean(each)) for step, each in steps.items()} for arm, steps in taken.items()}


def main() -> None:
    """Summarise and write."""
    parser = argparse.ArgumentParser(description="Analyse the raw results of the evidence.")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, instead of printing them")
    options = parser.parse_args()
    made = summary(options.results)
    if not made["arms"]:
        parser.error(f"{options.results} holds no results: run `python -m experiments.evidence.run` first")
    if options.json:
        with atomic_write(options.json) as file:
            json.dump(made, file, indent=1)
    tables = markdown(made, TABLE1, PRIMARY)
    if options.markdown:
        with atomic_write(options.markdown) as file:
            file.write(tables)
    else:
        print(tables)


if __name__ == "__main__":
    main()
