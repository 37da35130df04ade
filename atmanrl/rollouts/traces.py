"""Traces on disk: one JSON object a line, one schema everywhere.

`problem_id`, `prompt` (the user's turn), `cot`, `answer`, `gold`, `right`, `rewards` by name (null where one
abstained), `prompt_ids`, `completion_ids`, `logprobs` (a number for each token of the completion, or null), `saliency`
(a number for each token of the reasoning, or null), and `row`, `sample`, `finished`, `cot_tokens`. `atmanrl probe` adds
`line` (of the file that it read), `pieces` (the text of each token of the reasoning), `loss_initial`, `loss_final` and
`gradients`.

To be read, a trace needs `prompt`, `gold` (or `answer`, taken as gold) and either `cot` or a whole `completion`; token
ids are used where they are given and made where they are not. What was known of the tokens is read only with their ids.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.files import written_aside
from atmanrl.policy import Policy
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.sampler import Completion
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
        "logprobs": rollout.completion.logprobs or None,
        "saliency": rollout.saliency,
    }


def write(rollouts: Iterable[Rollout], path: Path) -> None:
    """Write a JSONL file beside `path` and move it there, so that no reader ever sees half of it."""
    with written_aside(path) as file:
        for rollout in rollouts:
            file.write(json.dumps(to_json(rollout), ensure_ascii=False) + "\n")


def read(
    path: Path, limit: int | None = None, on_fault: Callable[[int, str], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and checked objects of a JSONL file; empty lines are passed over.

    Args:
        path: the file.
        limit: read no more than the first so many traces, faulty ones counted.
        on_fault: is told the line number and the fault of each faulty line, which is then passed over; without it the
            first fault is raised.

    Raises:
        TraceError: no such file, not JSON, or a field that is missing or of the wrong type.
    """
    try:
        lines = path.read_bytes().split(b"\n")  # splitlines would also cut at a text's U+2028 or U+0085
    except OSError as error:
        raise TraceError(f"the traces {path} cannot be read: {error}") from error
    filled = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    for number, line in islice(filled, limit):
        try:
            trace = _checked(line)
        except TraceError as error:
            if on_fault is None:
                raise TraceError(f"{path}, line {number}: {error}") from error
            on_fault(number, str(error))
            continue
        yield number, trace


def _checked(line: bytes) -> dict[str, Any]:
    try:
        trace = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise TraceError(f"not UTF-8 (byte {error.start + 1}).") from error
    except json.JSONDecodeError as error:
        raise TraceError(f"not JSON ({error.msg} at column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise TraceError(f"not JSON that can be read ({error}).") from error
    if not isinstance(trace, dict):
        raise TraceError(f"a trace is a JSON object, not {type(trace).__name__}.")
    for name, (fits, kind) in FIELDS.items():
        if trace.get(name) is not None and not fits(trace[name]):
            raise TraceError(f"field {name!r} must be {kind}.")
    if trace.get("prompt") is None:
        raise TraceError("field 'prompt' is missing.")
    if all(trace.get(name) is None for name in ("cot", "completion", "completion_ids")):
        raise TraceError(f"needs 'cot', or a whole 'completion' with its delimiter {DELIMITER}.")
    if trace.get("gold") is None and trace.get("answer") is None:
        raise TraceError("field 'gold' (or 'answer') is missing.")
    if (given := trace.get("logprobs")) and (ids := trace.get("completion_ids")) and len(given) != len(ids):
        raise TraceError(f"field 'logprobs' has {len(given)} values for {len(ids)} tokens.")
    return trace


def _is_text(value: Any) -> bool:
    """Text that can be written again: JSON can escape half of a surrogate pair, UTF-8 cannot hold it."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and i >= 0 for i in value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _are_rewards(value: Any) -> bool:
    return isinstance(value, dict) and all(v is None or _is_number(v) for v in value.values())


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("prompt", "cot", "completion", "answer", "gold"), (_is_text, "a text")),
    **dict.fromkeys(("prompt_ids", "completion_ids"), (_are_ids, "a list of token ids")),
    **dict.fromkeys(("logprobs", "saliency"), (_are_numbers, "a list of numbers")),
    **dict.fromkeys(("row", "sample"), (lambda value: type(value) is int, "a whole number")),
    **dict.fromkeys(("right", "finished"), (lambda value: type(value) is bool, "true or false")),
    "rewards": (_are_rewards, "an object of numbers"),
}
"""What a field must be where it is given."""


def from_json(trace: dict[str, Any], row: int, policy: Policy, where: str) -> Rollout:
    """A rollout of a checked object, tokenized for `policy` where it has no token ids.

    Raises:
        TraceError: token ids that the policy's vocabulary does not have, or a saliency for other tokens.
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
    parts = split(tokenizer, ids)
    of_tokens = known if "completion_ids" in known else {}  # of tokens made anew nothing is known
    saliency = of_tokens.get("saliency")
    if saliency is not None and len(saliency) != parts.cot_length:
        raise TraceError(
            f"{where}: field 'saliency' has {len(saliency)} values for a reasoning of {parts.cot_length} tokens."
        )
    rewards = {name: math.nan if value is None else value for name, value in known.get("rewards", {}).items()}
    return Rollout(
        problem=problem, row=known.get("row", row), sample=known.get("sample", 0), prompt=trace["prompt"],
        prompt_ids=prompt_ids, completion=Completion(ids, of_tokens.get("logprobs", []), known.get("finished", True)),
        parts=parts, right=trace.get("right"), rewards=rewards, saliency=saliency,
    )  # fmt: skip
