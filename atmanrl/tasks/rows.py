"""Rows of a task's data, from the user's folder or from the hub, each behind its place for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atmanrl.errors import first_line
from atmanrl.io import jsonl
from atmanrl.tasks.base import TaskError


def data_folder(path: str, holds: str) -> Path:
    """Return the user's folder; `holds` says in the error message what stands in it.

    Raises:
        TaskError: there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise TaskError(f"{folder}: {state}; --data.task.path takes the folder of {holds}.")
    return folder


def file_rows(file: Path) -> Iterator[tuple[str, object]]:
    """Yield each row of a JSONL file behind its place, `file, line 3`; blank lines are passed over.

    Raises:
        TaskError: the file cannot be read, or a line is no JSON; the message names it.
    """
    try:
        for line in jsonl.read(file):
            where = f"{file}, line {line.number}"
            if line.fault:
                raise TaskError(f"{where}: {line.fault}")
            yield where, line.row
    except OSError as error:
        raise TaskError(f"{file}: cannot be read ({error.strerror}); check its permissions.") from error


def hub_rows(hub_name: str, configuration: str, split: str, advice: str) -> Iterator[tuple[str, object]]:
    """Yield each row of a dataset behind its place; the first row is row 0, as the hub's viewer counts.

    Raises:
        TaskError: it cannot be loaded, or a row holds what cannot be written again; the message says why, and `advice`
            what to do.
    """
    import datasets  # takes a second or two, which users of local files need not wait

    try:
        rows: Any = datasets.load_dataset(hub_name, configuration, split=split)
    except Exception as error:  # network, hub, cache and file format each fail with classes of their own
        raise TaskError(
            f"{hub_name}: cannot be loaded through `datasets` ({type(error).__name__}: {first_line(error)}); {advice} as "
            "--data.task.path."
        ) from error
    for number, row in enumerate(rows):
        where = f"{hub_name}, split {split}, row {number}"
        try:
            jsonl.check(row)
        except jsonl.RowError as error:
            raise TaskError(f"{where}: {error}") from error
        yield where, row
