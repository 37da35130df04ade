"""JSON lines: the one reader of rows that tasks, traces and reports share. No torch here.

A row is checked whole before anything of it is used. What is read can be written again, in UTF-8 and as JSON, and costs
neither the stack nor the memory of the machine: a row has limits of bytes, of depth and of digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from atmanrl.errors import UserError

MOST_BYTES = 8 << 20
"""Of a line. 128,000 tokens with their ids, log-probabilities and saliencies take about 7 MB."""

MOST_CHARACTERS = 1_000_000
"""Of a text; tokenizers take minutes for more."""

MOST_DEPTH = 64
"""Of brackets within brackets."""


class RowError(UserError):
    """A line is no usable row. The message says why, and leaves the place to the caller."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file that is not blank: its number from 1, and the object on it or what is wrong with it.

    Example:
        Line(3, {"prompt": "1 + 1?", "gold": "2", "cot": "1 + 1 = 2"})
        Line(4, {}, "not JSON (Expecting value at column 10).")
    """

    number: int
    row: dict[str, Any]
    fault: str = ""


def read(path: Path) -> Iterator[Line]:
    """Yield a file line by line, with what is wrong with faulty ones; blank lines are passed over.

    A line ends at a line feed alone, so that a text may hold U+2028. A byte order mark is no part of a line.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        yield from lines(file)


def lines(file: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of a file that is open, as `read` does."""
    number = 0
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        whole = line.endswith(b"\n")
        if not whole and len(line) > MOST_BYTES:
            while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Line(number, {}, f"longer than {MOST_BYTES >> 20} MiB.")
        elif line.removeprefix(b"\xef\xbb\xbf").strip():
            try:
                yield Line(number, parse(line.removesuffix(b"\n")))
            except RowError as error:
                cut_off = " The file ends within this line." if not whole and _is_cut_off(error) else ""
                yield Line(number, {}, f"{error}{cut_off}")


def parse(line: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        RowError: it is not UTF-8, not JSON, no object, or holds what `check` refuses or a key twice.
    """
    if len(line) > MOST_BYTES:
        raise RowError(f"longer than {MOST_BYTES >> 20} MiB.")
    return checked(value(line))


def value(text: bytes) -> Any:
    """Read one JSON value.

    Raises:
        RowError: it is not UTF-8, not JSON, or holds a key twice.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RowError("not UTF-8 but UTF-16; save the file in UTF-8.")
    try:
        # some editors on Windows begin a file with a byte order mark
        return json.loads(text.decode("utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8 (byte {error.start + 1}); save the file in that encoding.") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise RowError(f"not JSON ({error.msg} at {place}).") from error
    except RecursionError as error:
        raise RowError(f"not JSON that can be read (brackets more than {MOST_DEPTH} deep).") from error
    except RowError:
        raise
    except ValueError as error:  # Python reads no whole number of thousands of digits
        raise RowError("not JSON that can be read (a number of thousands of digits).") from error


def checked(row: Any) -> dict[str, Any]:
    """Return a value that is an object and can be written again.

    Raises:
        RowError: it is no object, or holds what `check` refuses.
    """
    if not isinstance(row, dict):
        raise RowError(f"must be a JSON object, not {type(row).__name__}.")
    check(row)
    return row


def check(value: Any) -> None:
    """Check that a value, with all that is in it, can be written again.

    Raises:
        RowError: half of a surrogate pair, a text too long, a number that is not finite or beyond a double's range, or
            brackets too deep. The message begins with the field where the value is an object.
    """
    level = [("", value)]
    for _ in range(MOST_DEPTH + 1):
        below: list[tuple[str, Any]] = []
        for name, item in level:
            kind = type(item)
            if kind is dict:
                for key, inner in item.items():
                    if not is_text(key):
                        raise RowError(f"{_of(name)}a key that UTF-8 cannot hold ({key!a:.40}).")
                    below.append((name or key, inner))
            elif kind is list:
                below += [(name, inner) for inner in item]
            elif kind is str and not is_text(item):
                why = "half of a surrogate pair" if len(item) <= MOST_CHARACTERS else f"{len(item)} characters"
                raise RowError(f"{_of(name)}no text that can be used ({why}).")
            elif kind in (int, float) and not is_number(item):
                raise RowError(f"{_of(name)}a number beyond all range.")
        if not below:
            return
        level = below
    raise RowError(f"{_of(level[0][0])}brackets more than {MOST_DEPTH} deep.")


def is_text(value: object) -> bool:
    """Return whether a value is a text of at most `MOST_CHARACTERS` that UTF-8 can hold: JSON can escape half of a pair."""
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: object) -> bool:
    """Return whether a value is a number, and no truth value, that a double can hold."""
    if type(value) is int:
        return value.bit_length() < 1024
    return type(value) is float and math.isfinite(value)


def dumps(value: Any) -> str:
    """Write a value as one line of JSON, without its end; half of a surrogate pair stays as its escape."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _of(name: str) -> str:
    return f"field {name!r} holds " if name else "holds "


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowError(f"not JSON that can be used (the key {twice!a:.40} stands twice).")
    return row


def _no_number(name: str) -> NoReturn:
    raise RowError(f"not JSON ({name} is no number there; write null).")


def _is_cut_off(error: RowError) -> bool:
    return isinstance(error.__cause__, json.JSONDecodeError | UnicodeDecodeError)
