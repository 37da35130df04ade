"""The words of a test's reasoning by class, one line a rollout, so that the analysis needs no tagger.

python -m experiments.evidence.count --rollouts RUN/eval/test.jsonl --out counts.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from atmanrl.io import jsonl
from atmanrl.io.files import atomic_write
from atmanrl.metrics.tagger import build_tagger, count_tokens

FIELDS = ("problem_id", "sample", "correct", "cot_tokens", "words", "numbers", "stop_words", "symbols")


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description="Count words, numbers, stop words and symbols by lexical rules.")
    parser.add_argument("--rollouts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    rollouts = [line.row for line in jsonl.read(options.rollouts)]
    docs = build_tagger().pipe((rollout["cot"] for rollout in rollouts), batch_size=64)
    with atomic_write(options.out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for rollout, doc in zip(rollouts, docs, strict=True):
            words, numbers, stop_words, symbols = count_tokens(doc)
            writer.writerow([
                rollout["problem_id"], rollout["sample"], int(rollout["right"]), rollout["cot_tokens"], words, numbers,
                stop_words, symbols,
            ])  # fmt: skip


if __name__ == "__main__":
    main()
