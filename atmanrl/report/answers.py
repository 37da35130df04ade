"""What a run's policy said in its test, read from `eval/test.jsonl` without a tokenizer and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    right: bool
    length: int


@dataclass(frozen=True)
class Probed:
    """What `atmanrl probe` found for one reasoning: its tokens' texts with their saliency, the reward, the losses."""

    pieces: list[str]
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
                answer = Answer(
                    problem=line["problem_id"], sample=line["sample"], prompt=line["prompt"], cot=line["cot"],
                    answer=line["answer"], gold=line["gold"], right=bool(line["right"]), length=line["cot_tokens"],
                )  # fmt: skip
            except KeyError as error:
                raise ReportError(
                    f"{path}, line {number}: field {error} is missing; run `atmanrl test` again."
                ) from error
            texts = (answer.problem, answer.prompt, answer.cot, answer.gold)
            numbers = (answer.sample, answer.length)
            if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int) for n in numbers):
                raise ReportError(f"{path}, line {number}: a field has the wrong type; run `atmanrl test` again.")
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
        try:
            if line["saliency"] is not None:
                found[line["problem_id"], line["cot"]] = Probed(
                    line["pieces"], line["saliency"], line["rewards"].get("saliency"), line["loss_initial"],
                    line["loss_final"],
                )  # fmt: skip
        except (KeyError, AttributeError, TypeError) as error:
            raise ReportError(f"{path}, line {number}: not a line of `atmanrl probe` ({error}).") from error
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # splitlines would also cut at a text's U+2028 or U+0085
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise ReportError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise ReportError(f"{path}, line {number}: a rollout is a JSON object, not {type(value).__name__}.")
        yield number, value
