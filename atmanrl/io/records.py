"""JSON files that one command leaves for another: each has a declared schema, and is checked where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from atmanrl.errors import UserError

T = TypeVar("T")


class RecordError(UserError):
    """A file is not what a command has left there; the message names file and field."""


def read_record(path: Path, schema: type[T], advice: str) -> T:
    """Read a JSON file.

    Args:
        path: the file.
        schema: a `TypedDict` of `typing_extensions`; numbers, texts and truth values are told apart strictly, and fields
            that it does not name are dropped.
        advice: what to do about a bad file, the end of the message.

    Raises:
        RecordError: it is not UTF-8, not JSON, or not of the schema.
        OSError: it cannot be read.
    """
    return parse_record(path.read_bytes(), schema, str(path), advice)


def parse_record(text: bytes, schema: type[T], where: str, advice: str) -> T:
    """Read one JSON value, as `read_record` does.

    Args:
        text: the JSON.
        schema: see `read_record`.
        where: what an error names: the file, and the line if it has several.
        advice: what to do, the end of the message.

    Raises:
        RecordError: it is not UTF-8, not JSON, or not of the schema.
    """
    try:
        return TypeAdapter(schema).validate_json(text, strict=True)
    except ValidationError as error:
        raise RecordError(f"{where}{_fault(error)}; {advice}.") from error


def check_record(value: object, schema: type[T], where: str, advice: str) -> T:
    """Check a value that is read already, as `read_record` checks a file.

    Raises:
        RecordError: it is not of the schema.
    """
    try:
        return TypeAdapter(schema).validate_python(value, strict=True)
    except ValidationError as error:
        raise RecordError(f"{where}{_fault(error)}; {advice}.") from error


def _fault(error: ValidationError) -> str:
    """The first fault: which field, and what is wrong with it."""
    fault: Any = error.errors(include_url=False)[0]
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "json_invalid":
        return f" is not JSON that can be read ({fault['ctx']['error']})"
    if fault["type"] == "missing":
        return f" lacks the field {field}"
    if fault["type"] == "extra_forbidden":
        return f" has a field {field}, which is not known here"
    text = fault["msg"].removeprefix("Value error, ")
    message = text[0].lower() + text[1:]
    return f": {f'field {field}: ' if field else ''}{message}, and not {fault['input']!r:.60}"
