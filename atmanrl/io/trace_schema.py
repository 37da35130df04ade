"""The schema of a stored trace, declared once for whoever reads one: rollouts, the probe and reports. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from atmanrl.io.jsonl import RowError, is_number, is_text


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _are_rewards(value: object) -> bool:
    return isinstance(value, dict) and all(v is None or is_number(v) for v in value.values())


def _are_fractions(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(v is None or is_number(v) for v in pair)
        for pair in value.values()
    )


def _is_delimiter(value: object) -> bool:
    return (is_text(value) and bool(value)) or (isinstance(value, dict) and is_text(value.get("class_path")))


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "problem_id": (lambda value: is_text(value) or type(value) is int, "a text or a whole number"),
    **dict.fromkeys(("prompt", "cot", "completion"), (is_text, "a text")),
    **dict.fromkeys(("answer", "gold"), (is_text, "a text or a number")),  # numbers have become texts
    **dict.fromkeys(("prompt_ids", "completion_ids"), (_are_ids, "a list of token ids")),
    **dict.fromkeys(("logprobs", "saliency"), (_are_numbers, "a list of numbers")),
    **dict.fromkeys(("row", "sample"), (lambda value: type(value) is int, "a whole number")),
    **dict.fromkeys(("cot_tokens", "line", "gradients"), (_is_count, "a whole number of at least 0")),
    **dict.fromkeys(("right", "finished"), (lambda value: type(value) is bool, "true or false")),
    **dict.fromkeys(("loss_initial", "loss_final"), (is_number, "a number")),
    "delimiter": (_is_delimiter, "a text, or an object with a class_path"),
    "rewards": (_are_rewards, "an object of numbers"),
    "metrics": (_are_fractions, "an object of pairs of numbers"),
    "pieces": (lambda value: isinstance(value, list) and all(map(is_text, value)), "a list of texts"),
}
"""What a field must be where it is given and not null."""


def check_fields(trace: Mapping[str, Any], needed: Iterable[str] = ()) -> None:
    """Check every field of a trace that the schema knows.

    Args:
        trace: the object.
        needed: fields that must be there and not null.

    Raises:
        RowError: a field is missing or of the wrong type.
    """
    for name in needed:
        if trace.get(name) is None:
            raise RowError(f"field {name!r} is missing.")
    for name, (fits, kind) in FIELDS.items():
        if trace.get(name) is not None and not fits(trace[name]):
            raise RowError(f"field {name!r} must be {kind}.")
