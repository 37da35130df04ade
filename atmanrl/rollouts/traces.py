"""Traces on disk: one JSON object a line, one schema everywhere.

`problem_id`, `prompt` (the user's turn), `cot`, `answer`, `gold`, `right`, `rewards` by name (null where one
abstained), `prompt_ids`, `completion_ids`, `saliency` (a number for each token of the reasoning, or null), and `row`,
`sample`, `finished`, `cot_tokens`. To be read, a trace needs `prompt`, `gold` (or `answer`, taken as gold) and either
`cot` or a whole `completion`; token ids are used where they are given and made where they are not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.files import written_aside
from atmanrl.policy import Policy
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.sampling import Completion
from atmanrl.rollouts.split import split
from atmanrl.tasks import DELIMITER, Problem


class TraceError(UserError):
    """A file of traces cannot be used; the message names the file, the line and the field."""


def to_json(rollout: Rollout) -> dict[str, Any]:
    """A rollout as one JSON object."""
    return {
        "problem_id": rollout.problem.id,
        "prompt": rollout.prompt,
        "cot": rollout.parts.cot,
        "answer": rollout.parts.answer,
        "gold": rollout.problem.gold,
        "right": rollout.right,
        "rewards": {name: None if math.isnan(value) else value for name, value in rollout.rewards.items()},
        "row": rollout.row,
        "sample": rollout.sample,
        "finished": rollout.completion.finished,
        "cot_tokens": rollout.parts.cot_length,
        "prompt_ids": rollout.prompt_ids,
        "completion_ids": rollout.completion.ids,
        "saliency": rollout.saliency,
    }


def write(rollouts: Iterable[Rollout], path: Path) -> None:
    """Write a JSONL file beside `path` and move it there, so that no reader ever sees half of it."""
    with written_aside(path) as file:
        for rollout in rollouts:
            file.write(json.dumps(to_json(rollout), ensure_ascii=False) + "\n")


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and checked objects of a JSONL file; empty lines are passed over.

    Raises:
        TraceError: no such file, not JSON, or a field that is missing or of the wrong type.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also cut at a text's U+2028 or U+0085
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"the traces {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _checked(line, f"{path}, line {number}")


def _checked(line: str, where: str) -> dict[str, Any]:
    try:
        trace = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from error
    if not isinstance(trace, dict):
        raise TraceError(f"{where}: a trace is a JSON object, not {type(trace).__name__}.")
    for name in ("prompt", "cot", "completion", "answer", "gold"):
        if trace.get(name) is not None and not isinstance(trace[name], str):
            raise TraceError(f"{where}: field {name!r} must be a text.")
    for name in ("prompt_ids", "completion_ids"):
        ids = trace.get(name)
        if ids is not None and not (isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)):
            raise TraceError(f"{where}: field {name!r} must be a list of token ids.")
    for name in ("row", "sample"):
        if trace.get(name) is not None and type(trace[name]) is not int:
            raise TraceError(f"{where}: field {name!r} must be a whole number.")
    if trace.get("prompt") is None:
        raise TraceError(f"{where}: field 'prompt' is missing.")
    if all(trace.get(name) is None for name in ("cot", "completion", "completion_ids")):
        raise TraceError(f"{where}: needs 'cot', or a whole 'completion' with its delimiter {DELIMITER}.")
    if trace.get("gold") is None and trace.get("answer") is None:
        raise TraceError(f"{where}: field 'gold' (or 'answer') is missing.")
    return trace


def from_json(trace: dict[str, Any], row: int, policy: Policy, where: str) -> Rollout:
    """A rollout of a checked object, tokenized for `policy` where it has no token ids.

    Raises:
        TraceError: token ids that the policy's vocabulary does not have.
    """
    tokenizer = policy.tokenizer
    gold = trace["gold"] if trace.get("gold") is not None else trace["answer"]
    prompt_ids = trace.get("prompt_ids") or policy.encode_prompt(trace["prompt"])
    ids = trace.get("completion_ids")
    if ids is None:
        text = trace.get("completion")
        if text is None:
            answer = trace["answer"] if trace.get("answer") is not None else gold
            text = f"{trace['cot'].rstrip()}\n{DELIMITER} {answer}"
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    size = policy.model.get_input_embeddings().num_embeddings
    if max(*prompt_ids, *ids, 0) >= size:
        raise TraceError(
            f"{where}: token ids beyond the model's vocabulary of {size}; these traces come from another tokenizer. "
            "Leave prompt_ids and completion_ids out to tokenize the text anew."
        )
    known = {name: value for name, value in trace.items() if value is not None}
    problem = Problem(id=str(known.get("problem_id", f"trace/{row}")), question=trace["prompt"], gold=gold)
    return Rollout(
        problem=problem, row=known.get("row", row), sample=known.get("sample", 0), prompt=trace["prompt"],
        prompt_ids=prompt_ids, completion=Completion(ids, [], bool(known.get("finished", True))),
        parts=split(tokenizer, ids), right=trace.get("right"),
    )  # fmt: skip
