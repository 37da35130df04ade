"""The instrument's traces: groups of a question's gold solution and of the model's own samples, kept on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.rollouts import Rollout, traces
from atmanrl.rollouts.split import splitter_of
from experiments.gpu.record import Record
from experiments.real.evaluation import answers, test_rows
from experiments.real.scale import Scale
from experiments.real.tasks import task_of

LONGEST = 220
"""Tokens of the longest reasoning that is taken."""
GOLD = -1
"""The number, among a question's samples, of its gold solution."""


def groups(args: argparse.Namespace, scale: Scale, policy: Policy, record: Record) -> Iterator[list[Rollout]]:
    """Yield groups of a gold solution and of `scale.own` samples that have a reasoning and an answer.

    Questions are asked `scale.asked` at a time, as groups are called for, and what came of them is read from
    `args.work/questions` where it is there already.
    """
    splitter = splitter_of(scale.delimiter)
    task = task_of(scale.probed, args.work)
    task.ask_for(splitter.instruction)
    rows = [(i, p) for i, p in test_rows(task, 2 * scale.questions) if p.solution and not splitter.cuts(p.solution)]
    counts = {"questions asked": 0, "samples": 0, "with reasoning and answer": 0, "right": 0, "questions": 0}
    for start in range(0, len(rows), scale.asked):
        path = args.work / "questions" / f"{start:03}.json"
        if not path.exists():
            _write(path, _ask(scale, policy, task, rows[start : start + scale.asked]))
        asked = json.loads(path.read_text())
        for name in list(counts)[:-1]:
            counts[name] += asked[name]
        for group in asked["groups"][: scale.questions - counts["questions"]]:
            counts["questions"] += 1
            record.put("traces", {**counts, "a question": len(group)})
            yield [traces.from_json(trace, trace["row"], policy, str(path), splitter) for trace in group]
        if counts["questions"] == scale.questions:
            return


def _ask(scale: Scale, policy: Policy, task: Any, rows: list[Any]) -> dict[str, Any]:
    """Sample answers to some questions; keep those that can be probed, of questions with enough of them."""
    splitter = splitter_of(scale.delimiter)
    own = answers(policy, task, rows, scale.draws, scale.new_tokens, scale.delimiter, scale.temperature)
    kept = []
    for k, (row, problem) in enumerate(rows):
        usable = [
            r for r in own[k * scale.draws : (k + 1) * scale.draws]
            if r.can_be_probed and 5 <= r.parts.cot_length <= LONGEST
        ]  # fmt: skip
        gold = {
            "problem_id": problem.id, "prompt": task.prompt(problem), "cot": problem.solution, "gold": problem.gold,
            "right": True, "row": row, "sample": GOLD,
        }  # fmt: skip
        if len(usable) >= scale.own:
            solution = traces.from_json(gold, row, policy, problem.id, splitter)
            kept.append([traces.to_json(each) for each in (solution, *usable[: scale.own])])
    return {
        "questions asked": len(rows), "samples": len(own), "with reasoning and answer": sum(r.can_be_probed for r in own),
        "right": sum(bool(r.correct) for r in own), "groups": kept,
    }  # fmt: skip


def _write(path: Path, asked: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        json.dump(asked, file)
