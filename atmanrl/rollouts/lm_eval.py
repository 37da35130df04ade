"""The samples that lm-evaluation-harness logs (`--log_samples`): where a row keeps prompt, completion and gold answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atmanrl.io.jsonl import RowError


def is_sample(row: Mapping[str, Any]) -> bool:
    """Return whether a row is such a sample."""
    return "resps" in row and ("doc" in row or "arguments" in row)


def identity(row: Mapping[str, Any]) -> str | None:
    """Return what samples share that differ in their filter alone; None for a row that is no sample of a filter.

    The harness writes a completion once for each filter that looks for an answer in it.
    """
    if not is_sample(row) or "filter" not in row:
        return None
    return repr((row.get("doc_id"), row.get("doc_hash"), row["resps"]))


def sources(row: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return key and value of `prompt`, `completion` and `gold`, as far as they are there.

    Raises:
        RowError: the task was to choose among continuations, so that the model has written nothing.
    """
    prompt, doc = _prompt(row.get("arguments")), row.get("doc")
    found: dict[str, tuple[str, Any]] = {}
    if prompt is not None:
        found["prompt"] = ("arguments", prompt)
    elif isinstance(doc, dict) and isinstance(doc.get("question"), str):
        found["prompt"] = ("doc.question", doc["question"])
    completion = _completion(row["resps"])
    if completion is not None:
        found["completion"] = ("resps", completion)
    if row.get("target") is not None:
        found["gold"] = ("target", row["target"])
    return found


def _prompt(arguments: Any) -> Any:
    """The prompt of the first request: a text, or messages as JSON."""
    if isinstance(arguments, dict):
        arguments = [list(request.values()) for request in arguments.values() if isinstance(request, dict)]
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    return arguments or None


def _completion(responses: Any) -> str | None:
    """The text of the first response."""
    first = responses[0] if isinstance(responses, list) and responses else None
    if isinstance(first, list) and len(first) == 1:
        (first,) = first
    elif (
        isinstance(first, list) and first and isinstance(first[0], str) and "False" not in first and "True" not in first
    ):
        first = first[0]  # of several samples
    if isinstance(first, list) or type(first) in (int, float):
        raise RowError("field 'resps' holds log-likelihoods and no completion; take a task that lets the model write.")
    return first if isinstance(first, str) else None
