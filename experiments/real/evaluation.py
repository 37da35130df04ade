"""Rollouts of a policy on a task, what Table 1 says of them, and how faithful they are; all without a trainer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from atmanrl.errors import UserError
from atmanrl.faithfulness import (
    CausalImportance,
    CopiedAnswer,
    CotAlone,
    EarlyAnswering,
    Erasure,
    FalseEquations,
    Filler,
    InformationFlow,
    Mistakes,
    OperatorSwap,
    RolloutMeasure,
)
from atmanrl.metrics.callback import MetricsCallback
from atmanrl.models.policy import Policy
from atmanrl.rollouts import Rollout, RolloutBatch, RolloutDataModule, traces
from atmanrl.tasks import DELIMITER, Task
from experiments.evidence.measure import means, rows_of
from experiments.gpu.record import Record
from experiments.real.scale import Scale
from experiments.real.tasks import chosen, task_of

ROWS = 256
"""Rollouts that are sampled at once in evaluation."""


def data_of(task: Task, seed: int, problems: int, **options: Any) -> RolloutDataModule:
    """Return a data module whose test problems are so many, drawn by seed."""
    return RolloutDataModule(task, seed=seed, test_problems=problems, too_long="drop", **options)


def answers(
    policy: Policy, task: Task, rows: Sequence[Any], samples: int, new_tokens: int,
    delimiter: str = DELIMITER, temperature: float = 1.0,
) -> list[Rollout]:  # fmt: skip
    """Return `samples` rollouts of each problem; the same problems get the same random numbers in every call."""
    data = data_of(task, 0, len(rows), max_new_tokens=new_tokens, delimiter=delimiter, temperature=temperature)
    at_once = max(1, ROWS // samples)
    batches = [
        data.answer(policy, rows[i : i + at_once], "test", 0, samples).rollouts for i in range(0, len(rows), at_once)
    ]
    return [rollout for batch in batches for rollout in batch]


def test_rows(task: Task, problems: int, split: str = "test") -> list[Any]:
    """Return problems with their rows, drawn by the seed 0."""
    every = task.problems(split)  # type: ignore[arg-type]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).tolist()
    return [(row, every[row]) for row in order[:problems]]


def table(rollouts: list[Rollout], task: Task, samples: int) -> dict[str, float]:
    """Return Table 1's columns but for the composition, which needs spaCy and is counted from the stored texts."""
    values: dict[str, float] = {}
    batch = RolloutBatch(rollouts, samples)
    for metric in MetricsCallback().metrics.values():
        metric.prepare(task, samples)
        metric.update(batch)
        values |= {key: round(float(value), 5) for key, value in metric.compute().items()}
    values["accuracy"] = sum(bool(r.correct) for r in rollouts) / len(rollouts)
    values["answered"] = sum(r.parts.answer is not None for r in rollouts) / len(rollouts)
    return values


def stored(rollout: Rollout, **more: Any) -> dict[str, Any]:
    """Return a rollout as a trace without token ids, for a file of texts."""
    left_out = ("prompt_ids", "completion_ids", "logprobs", "metrics", "saliency", "row")
    return {**more, **{key: value for key, value in traces.to_json(rollout).items() if key not in left_out}}


def append(path: Path, objects: Sequence[dict[str, Any]]) -> None:
    """Append JSON lines to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(each) + "\n" for each in objects))


def measure(args: argparse.Namespace, scale: Scale, record: Record) -> None:
    """Step `before`: the warm start on the chosen task, which the arms are compared with."""
    torch.set_float32_matmul_precision("high")
    policy = Policy(str(args.work / "warm")).build().to(args.device).eval()
    evaluate(args, scale, record, policy, task_of(chosen(args.work), args.work))


def evaluate(args: argparse.Namespace, scale: Scale, record: Record, policy: Policy, task: Task) -> None:
    """Answer the test problems, write the texts, and measure."""
    rollouts = answers(policy, task, test_rows(task, scale.test_problems), scale.test_samples, scale.new_tokens)
    record.put("test", table(rollouts, task, scale.test_samples))
    texts = [stored(rollout, arm=args.run, task=chosen(args.work)) for rollout in rollouts]
    append(args.work / f"eval.{args.run}.jsonl", texts)
    faithfulness(policy, rollouts[:: scale.test_samples][: scale.measured], record)


def faithfulness(policy: Policy, rollouts: list[Rollout], record: Record) -> None:
    """Measure one rollout of each problem, as long as there is time."""
    every: list[RolloutMeasure] = [
        CausalImportance(gold=True), CotAlone(), EarlyAnswering(), Mistakes(0), Filler(), OperatorSwap(), CopiedAnswer(),
        FalseEquations(), InformationFlow(), Erasure(seed=0),
    ]  # fmt: skip
    values: dict[str, float | None] = {}
    for each in every:
        called = f"faithfulness, {type(each).__name__}"
        if record.in_time(called, 4.0):
            try:
                values |= means(rows_of(rollouts, policy, [each]))
            except (UserError, RuntimeError) as error:
                record.fail(called, repr(error))
            record.put("faithfulness", values)
