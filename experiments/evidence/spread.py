"""How much a reward differs within a group before training, and the weight that evens it with saliency's.

    python -m experiments.evidence.spread --arm b --arm c          # adds them to results/spread.json

64 tuning problems, 8 samples each of the warm start (see `protocol.md`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from atmanrl.io import jsonl
from atmanrl.io.files import atomic_write
from experiments.evidence.arms import ARMS, Arm

TARGET = 0.293
"""Of weight times standard deviation: that of saliency with its weight of 10."""
RESULTS = Path(__file__).parent / "results/spread.json"


def spreads(predictions: Path) -> dict[str, float]:
    """The standard deviation of each reward within a problem's samples, in the mean over problems.

    Args:
        predictions: a file that `atmanrl predict` wrote, with rewards before their weights.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in jsonl.read(predictions):
        for name, value in line.row["rewards"].items():
            if value is not None:
                values[name][line.row["problem_id"]].append(value)
    return {
        name: statistics.mean(statistics.stdev(group) for group in groups.values() if len(group) > 1)
        for name, groups in values.items()
    }


def command(arm: Arm, folder: Path) -> list[str]:
    """What samples and rewards the tuning problems."""
    return [
        "-m", "atmanrl", "predict", "--config", arm.config, *arm.options, "--data.task.seed=1", "--data.eval_samples=8",
        "--data.test_problems=64", f"--trainer.default_root_dir={folder}",
    ]  # fmt: skip


def main() -> None:
    """Measure some arms and add them to the results."""
    parser = argparse.ArgumentParser(description="Measure the spread of rewards within groups before training.")
    parser.add_argument("--arm", action="append", choices=ARMS, required=True)
    for key in parser.parse_args().arm:
        with tempfile.TemporaryDirectory() as folder:
            words = command(ARMS[key], Path(folder) / "run")
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            measured = spreads(Path(folder) / "run/predictions.jsonl")
            words[-1] = "--trainer.default_root_dir=FOLDER"
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept[key] = {
            "command": shlex.join(["python", *words]), "spread": measured,
            "weights": {name: TARGET / value if value else None for name, value in measured.items()},
        }  # fmt: skip
        with atomic_write(RESULTS) as file:
            json.dump(dict(sorted(kept.items())), file, indent=1)
        print(key, kept[key]["spread"], kept[key]["weights"])


if __name__ == "__main__":
    main()
