"""Rows of a file: JSON lines, or Parquet, which is known by its first bytes. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError, first_line
from atmanrl.io import jsonl
from atmanrl.io.jsonl import Line, RowError

PARQUET = b"PAR1"
"""What a Parquet file begins with."""

AT_ONCE = 256
"""Rows of a Parquet file that are held at once."""


def read(path: Path) -> Iterator[Line]:
    """Yield the rows of a file, with what is wrong with faulty ones, as `jsonl.read` does.

    Rows of Parquet are counted from 1; a number that is not finite is null there.

    Raises:
        UserError: it begins as Parquet, and is none that can be read.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        is_parquet = file.read(len(PARQUET)) == PARQUET
    yield from _read_parquet(path) if is_parquet else jsonl.read(path)


def _read_parquet(path: Path) -> Iterator[Line]:
    import pyarrow as pa  # a second, which readers of JSON lines need not wait for
    from pyarrow.parquet import ParquetFile

    numbers = count(1)
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                for row in batch.to_pylist():
                    yield _line(next(numbers), row)
    except pa.ArrowException as error:
        raise UserError(f"{path} is no Parquet file that can be read ({first_line(error)}); write it again.") from error


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
