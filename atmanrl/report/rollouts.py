"""A test's rollouts as `eval/test.jsonl` stores them, and the saliencies that a probe of them stored. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atmanrl.io import jsonl
from atmanrl.io.jsonl import RowError
from atmanrl.io.trace_schema import check_fields
from atmanrl.report.runs import ReportError

PROBED = Path("probe") / "traces.jsonl"
"""Where a report looks for saliency in a run's folder: `atmanrl probe --out RUN/probe` writes it."""

NEEDED = ("problem_id", "sample", "prompt", "cot", "gold", "right", "cot_tokens")
"""The fields of `eval/test.jsonl` that reports cannot do without."""


@dataclass(frozen=True)
class StoredRollout:
    """One rollout of a test.

    Example:
        `StoredRollout("sums/3", 0, "What is 1 + 2?", " 1 + 2 = 3.", "3", "3", True, 8, {"tokens_per_cot": (8, 1)})`

    Attributes:
        problem: the problem's id.
        sample: its number among the rollouts of that problem.
        prompt, cot, answer, gold, correct: as in `rollouts.traces`.
        length: of the reasoning, in the policy's own tokens.
        metrics: what it adds to each metric, a numerator and a denominator by key; null is NaN.
    """

    problem: str
    sample: int
    prompt: str
    cot: str
    answer: str | None
    gold: str
    correct: bool
    length: int
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredSaliency:
    """The saliency of one reasoning, as `atmanrl probe` stores it.

    Example: `StoredSaliency([" 1", " +", " 2"], [0.1, 0.0, 0.3], reward=0.13, loss_initial=2.1, loss_final=0.1)`

    Attributes:
        token_texts: the reasoning's tokens.
        saliency: of each of them.
        reward: the saliency reward; None where it is not known, as the others.
        loss_initial, loss_final: the loss of the gold answer before and after the mask was optimized, in nats a token.
    """

    token_texts: list[str]
    saliency: list[float]
    reward: float | None
    loss_initial: float | None
    loss_final: float | None


def read_rollouts(run: Path) -> list[StoredRollout]:
    """Read all rollouts of a run's test, ordered by problem and sample; none where none were kept.

    Several processes write a file each; a rollout that two of them hold counts once.

    Raises:
        ReportError: a line is not JSON or lacks a field.
    """
    single = run / "eval" / "test.jsonl"
    paths = [single] if single.exists() else sorted((run / "eval").glob("test.rank*.jsonl"))
    rollouts: dict[tuple[str, int], StoredRollout] = {}
    for path in paths:
        for number, line in _lines(path):
            try:
                check_fields(line, NEEDED)
            except RowError as error:
                raise ReportError(f"{path}, line {number}: {error} Run `atmanrl test` again.") from error
            metrics = {key: (_number(a), _number(b)) for key, (a, b) in (line.get("metrics") or {}).items()}
            rollout = StoredRollout(
                problem=str(line["problem_id"]), sample=line["sample"], prompt=line["prompt"], cot=line["cot"],
                answer=line.get("answer"), gold=line["gold"], correct=line["right"], length=line["cot_tokens"],
                metrics=metrics,
            )  # fmt: skip
            rollouts.setdefault((rollout.problem, rollout.sample), rollout)
    return [rollouts[key] for key in sorted(rollouts)]


def read_saliencies(run: Path) -> dict[tuple[str, str], StoredSaliency]:
    """Read saliencies by problem and reasoning; none where nobody probed the run (see `PROBED`).

    Raises:
        ReportError: a line is not JSON or lacks a field.
    """
    path = run / PROBED
    saliencies: dict[tuple[str, str], StoredSaliency] = {}
    for number, line in _lines(path) if path.exists() else ():
        if line.get("saliency") is None:
            continue
        try:
            check_fields(line, ("problem_id", "cot", "pieces", "rewards"))
        except RowError as error:
            raise ReportError(f"{path}, line {number}: not a line of `atmanrl probe` ({error}).") from error
        if len(line["pieces"]) != len(line["saliency"]):
            raise ReportError(
                f"{path}, line {number}: not a line of `atmanrl probe` ({len(line['saliency'])} saliencies for "
                f"{len(line['pieces'])} pieces)."
            )
        saliencies[str(line["problem_id"]), line["cot"]] = StoredSaliency(
            line["pieces"], line["saliency"], line["rewards"].get("saliency"), line.get("loss_initial"),
            line.get("loss_final"),
        )  # fmt: skip
    return saliencies


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line in jsonl.read(path):
        if line.fault:
            raise ReportError(f"{path}, line {line.number}: {line.fault}")
        yield line.number, line.row
