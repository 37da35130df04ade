"""What a run's policy said in its test, read from `eval/test.jsonl` without a tokenizer and without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmanrl.io import jsonl
from atmanrl.io.jsonl import RowError
from atmanrl.io.trace_schema import check_fields
from atmanrl.report.runs import ReportError

PROBED = Path("probe") / "traces.jsonl"
"""Where a report looks for saliency in a run's folder: `atmanrl probe --out RUN/probe` writes it."""


@dataclass(frozen=True)
class Answer:
    """One rollout of a test.

    Attributes:
        problem: its id; sample: its number among the rollouts of that problem.
        prompt, cot, answer, gold, right: as in `rollouts.traces`.
        length: of the reasoning, in the policy's own tokens.
    """

    problem: str
    sample: int
    prompt: str
    cot: str
    answer: str | None
    gold: str
    correct: bool
    length: int


@dataclass(frozen=True)
class Probed:
    """What `atmanrl probe` found for one reasoning: its tokens' texts with their saliency, the reward, the losses."""

    token_texts: list[str]
    saliency: list[float]
    reward: float | None
    loss_initial: float | None
    loss_final: float | None


def read_answers(run: Path) -> list[Answer]:
    """All rollouts of a run's test, ordered by problem and sample; empty where none were kept.

    Several processes write a file each; a rollout that two of them hold counts once.

    Raises:
        ReportError: a line is not JSON or lacks a field.
    """
    single = run / "eval" / "test.jsonl"
    paths = [single] if single.exists() else sorted((run / "eval").glob("test.rank*.jsonl"))
    found: dict[tuple[str, int], Answer] = {}
    for path in paths:
        for number, line in _lines(path):
            try:
                check_fields(line, ("problem_id", "sample", "prompt", "cot", "gold", "right", "cot_tokens"))
            except RowError as error:
                raise ReportError(f"{path}, line {number}: {error} Run `atmanrl test` again.") from error
            answer = Answer(
                problem=str(line["problem_id"]), sample=line["sample"], prompt=line["prompt"], cot=line["cot"],
                answer=line.get("answer"), gold=line["gold"], correct=line["right"], length=line["cot_tokens"],
            )  # fmt: skip
            found.setdefault((answer.problem, answer.sample), answer)
    return [found[key] for key in sorted(found)]


def read_probed(run: Path) -> dict[tuple[str, str], Probed]:
    """Saliencies by problem and reasoning, empty where nobody probed the run (see `PROBED`).

    Raises:
        ReportError: a line is not JSON or lacks a field.
    """
    path = run / PROBED
    found: dict[tuple[str, str], Probed] = {}
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
        found[str(line["problem_id"]), line["cot"]] = Probed(
            line["pieces"], line["saliency"], line["rewards"].get("saliency"), line.get("loss_initial"),
            line.get("loss_final"),
        )  # fmt: skip
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line in jsonl.read(path):
        if line.fault:
            raise ReportError(f"{path}, line {line.number}: {line.fault}")
        yield line.number, line.row
