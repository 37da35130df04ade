"""Rows of a file: JSON lines or an array, compressed or not, Parquet or Arrow; its first bytes say which. No torch here."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, cast

from atmanrl.errors import UserError, first_line
from atmanrl.io import jsonl
from atmanrl.io.jsonl import Line, RowError

PARQUET = b"PAR1"
"""What a Parquet file begins with."""

ARROW = b"\xff\xff\xff\xff"
"""What a stream of Arrow begins with, as `datasets` saves it to disk."""

GZIP = b"\x1f\x8b"
"""What a file that gzip has compressed begins with."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors begin a file in UTF-8 with."""

PEEK = 4096
"""Bytes of a file among which its first bracket stands."""

MOST_BYTES = 1 << 30
"""Of an array, which is held at once."""

AT_ONCE = 256
"""Rows of a Parquet file that are held at once."""


def read(path: Path) -> Iterator[Line]:
    """Yield the rows of a file, with what is wrong with faulty ones, as `jsonl.read` does.

    Rows of a table, and of an array, are counted from 1; a number that is not finite is null in a table.

    Raises:
        UserError: it begins as Parquet, Arrow, gzip or an array, and is none that can be read.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(len(PARQUET))
    if begin in (PARQUET, ARROW):
        yield from _read_table(path, begin)
        return
    try:
        with gzip.open(path) if begin.startswith(GZIP) else path.open("rb") as file:
            yield from _read_json(path, cast("IO[bytes]", file))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no gzip file that can be read ({first_line(error)}); write it again.") from error


def _read_json(path: Path, file: IO[bytes]) -> Iterator[Line]:
    if not _begins_array(file):
        yield from jsonl.lines(file)
        return
    whole = file.read(MOST_BYTES + 1)
    if len(whole) > MOST_BYTES:
        raise UserError(f"{path} is an array of more than {MOST_BYTES >> 20} MiB; write its rows as JSON lines.")
    try:
        array = jsonl.value(whole)
    except RowError as error:
        if isinstance(error.__cause__, json.JSONDecodeError) and error.__cause__.msg == "Extra data":
            file.seek(0)
            yield from jsonl.lines(file)  # lines, the first of which is a list
            return
        raise UserError(f"{path} begins as a JSON array and is none that can be read: {error}") from error
    for number, row in enumerate(array, start=1):
        try:
            yield Line(number, jsonl.checked(row))
        except RowError as error:
            yield Line(number, {}, str(error))


def holds_object(path: Path) -> bool:
    """Return whether a file of JSON is one object, as settings are: no array, and no lines of objects.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    with gzip.open(path) if packed else path.open("rb") as file:
        if _begins_array(cast("IO[bytes]", file)):
            return False
        lines = list(islice(jsonl.lines(cast("IO[bytes]", file)), 2))
    return len(lines) < 2 or bool(lines[0].fault)


def _begins_array(file: IO[bytes]) -> bool:
    begin = file.read(PEEK)
    file.seek(0)
    return begin.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")


def _read_table(path: Path, begin: bytes) -> Iterator[Line]:
    import pyarrow as pa  # a second, which readers of JSON lines need not wait for

    kind = "Parquet" if begin == PARQUET else "Arrow"
    numbers = count(1)
    try:
        for batch in _parquet(path) if begin == PARQUET else _arrow(path):
            for row in batch.to_pylist():
                yield _line(next(numbers), row)
    except pa.ArrowException as error:
        raise UserError(f"{path} is no {kind} file that can be read ({first_line(error)}); write it again.") from error


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=AT_ONCE)


def _arrow(path: Path) -> Iterator[Any]:
    from pyarrow import ipc

    with path.open("rb") as file, ipc.open_stream(file) as batches:
        yield from batches


def _line(number: int, row: dict[str, Any]) -> Line:
    row = finite(row)
    try:
        jsonl.check(row)
    except RowError as error:
        return Line(number, {}, str(error))
    return Line(number, row)


def finite(value: Any) -> Any:
    """Return the value with None for every number that is not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
