"""The tasks that may be trained on, from the hardest to the easiest, and which of them is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from atmanrl.tasks import GSM8K, Task, WordProblems

HELD_OUT = 500
"""Training problems of GSM8K that neither the warm start nor an update sees; the last of the file."""
LEAST = 0.15
"""A policy that is right less often has too few groups with a spread to learn from in minutes."""
TRAIN, HELD = "gsm8k", "gsm8k_held_out"
"""Folders of the data."""
STEPS: dict[str, int | None] = {"gsm8k": None, "gsm8k_3_steps": 3, "gsm8k_2_steps": 2}
"""Most steps of the problems' solutions, by the task's name."""
STORIES = "word_problems"
STORY_SEEDS = {"warm_start": 0, TRAIN: 2, HELD: 1}
"""Seeds of the word problems: other draws for the warm start, for the updates and for what is held out."""


def split_data(source: Path, work: Path, limit: int | None = None) -> None:
    """Copy GSM8K's files with the last `HELD_OUT` training problems in a folder of their own."""
    lines = (source / "train.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")[:limit]
    held_out = min(HELD_OUT, len(lines) // 4)
    for name, part in ((TRAIN, lines[:-held_out]), (HELD, lines[-held_out:])):
        (work / name).mkdir(parents=True, exist_ok=True)
        (work / name / "train.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
        (work / name / "test.jsonl").write_bytes((source / "test.jsonl").read_bytes())


def task_of(name: str, work: Path, folder: str = TRAIN) -> Task:
    """Return a task by its name.

    Args:
        name: one of `STEPS`, or `STORIES`.
        work: the folder with the data that `split_data` has split.
        folder: `TRAIN` or `HELD`: which training problems.
    """
    if name == STORIES:
        return WordProblems(train_size=4000, test_size=500, seed=STORY_SEEDS[folder])
    return GSM8K(str(work / folder), max_steps=STEPS[name])


def choose(accuracy: Mapping[str, float]) -> str:
    """Return the first task, from the hardest, on which the policy is right often enough; else the one with the most.

    Args:
        accuracy: of each task, from the hardest.
    """
    often = [name for name, share in accuracy.items() if share >= LEAST]
    return often[0] if often else max(reversed(list(accuracy)), key=accuracy.__getitem__)


def chosen(work: Path) -> str:
    """Return the name of the task that the warm start has chosen."""
    name: str = json.loads((work / "chosen.json").read_text())["task"]
    return name
