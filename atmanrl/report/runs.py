"""A run's folder as a report reads it: its name, the figures of its test, and what these depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io import jsonl
from atmanrl.metrics.columns import Column, merged, unrecorded
from atmanrl.tasks import DELIMITER

Row = dict[str, float]
"""The values of one method by key, in the metrics' own units; NaN where one is not defined."""

MARKS = ("config.yaml", "metrics.csv", "eval/test.json")
"""A folder with none of these is no run's folder."""

LEXICAL = "lexical rules"
"""What a test's setting calls the tagger that needs no pipeline."""


class ReportError(UserError):
    """A run cannot be reported; the message names the file and says what to do."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: of its row; the folder's name with spaces for underscores.
        folder: where it lies.
        row: the figures of its test, None where it was not tested.
        setting: what the test depended on, empty where nobody wrote that down.
        columns: how its values are shown, by key.
    """

    name: str
    folder: Path
    row: Row | None
    setting: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def pipeline(self) -> str | None:
        """The spaCy pipeline that tagged its test; None for the lexical rules."""
        tagger = self.setting.get("tagger")
        return tagger if isinstance(tagger, str) and tagger != LEXICAL else None


def columns(runs: Iterable[Run]) -> dict[str, Column]:
    """The columns of all runs.

    Raises:
        ReportError: a column is of different kinds in two of them.
    """
    try:
        return merged(run.columns for run in runs)
    except ValueError as error:
        raise ReportError(f"these runs cannot stand in one table: {error}; leave some out.") from error


def load_row(run: Path) -> Row:
    """Reads the values that Table 1 shows from a run's `eval/test.json`; other keys there are ignored, null is NaN.

    Args:
        run: the run's folder.

    Raises:
        ReportError: the file is missing, is not a JSON object, or lacks a figure.
    """
    return _run("", run, _read_test(run)).row or {}


def load_tested(folders: Sequence[Path]) -> list[Run]:
    """Runs that must have been tested.

    Raises:
        ReportError: as `load_row`; two runs have one name.
    """
    named = _named(folders)
    return [_run(name, folder, _read_test(folder)) for name, folder in named.items()]


def load(folders: Sequence[Path]) -> list[Run]:
    """Runs of which some may have been trained and not yet tested.

    Raises:
        ReportError: a folder does not exist or is no run's folder; two runs have one name; a test's file is unusable.
    """
    runs = []
    for name, folder in _named(folders).items():
        if not folder.is_dir():
            raise ReportError(f"{folder} is no folder; give the folder of a run (its trainer.default_root_dir).")
        if not any((folder / mark).exists() for mark in MARKS):
            raise ReportError(f"{folder} is no run's folder: it has none of {', '.join(MARKS)}.")
        tested = (folder / "eval" / "test.json").exists()
        runs.append(_run(name, folder, _read_test(folder)) if tested else Run(name, folder, None))
    return runs


def comparable(runs: Sequence[Run]) -> list[str]:
    """Notes on how the tests of some runs differ.

    Raises:
        ReportError: they were of different tasks, or counted by different taggers: no figure could be compared.
    """
    notes = []
    for key, what in (("task", "tasks"), ("tagger", "taggers")):
        found = _values(runs, key)
        if len(found) > 1:
            told = "; ".join(f"{value}: {', '.join(names)}" for value, names in found.items())
            raise ReportError(
                f"these runs were tested with different {what} ({told}); test them alike, or leave some out."
            )
    told_apart = {
        "samples": "samples a problem", "temperature": "temperatures", "max_new_tokens": "limits",
        "delimiter": "delimiters",
    }  # fmt: skip
    for key, what in told_apart.items():
        found = _values(runs, key)
        if len(found) > 1:
            told = "; ".join(f"{value}: {', '.join(names)}" for value, names in found.items())
            notes.append(f"The tests had different {what} ({told}), so part of a change may come from that.")
    return notes


def _values(runs: Sequence[Run], key: str) -> dict[str, list[str]]:
    """Each value of a setting with the runs that have it; runs without it are left out."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.setting.get(key) is not None:
            found.setdefault(str(run.setting[key]), []).append(run.name)
    return found


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for folder in folders:
        name = title(folder.resolve().name or str(folder))
        if name in named:
            raise ReportError(
                f"{named[name]} and {folder} have the same name; rename one of them, or give one through a link."
            )
        named[name] = folder
    return named


def title(name: str) -> str:
    """A folder's name as a row's name."""
    return name.replace("_", " ")


def _read_test(run: Path) -> dict[str, Any]:
    path = run / "eval" / "test.json"
    try:
        return jsonl.parse(path.read_bytes())
    except FileNotFoundError:
        raise ReportError(f"{path} does not exist: run `atmanrl test` on this run first") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    except jsonl.RowError as error:
        raise ReportError(f"{path}: {error} Run `atmanrl test` again.") from error


def _run(name: str, folder: Path, test: Mapping[str, Any]) -> Run:
    path = folder / "eval" / "test.json"
    columns = _columns(test, path)
    if missing := [key for key in columns if key not in test]:
        raise ReportError(f"{path} lacks {', '.join(missing)}: run `atmanrl test` again")
    row = {key: _number(test[key], key, path) for key in columns}
    return Run(name, folder, row, _setting(test), columns)


def _columns(test: Mapping[str, Any], path: Path) -> dict[str, Column]:
    """As the evaluation recorded them; today's where it did not."""
    if "columns" not in test:
        return unrecorded(test)
    try:
        return {key: Column.from_json(value) for key, value in dict(test["columns"]).items()}
    except (TypeError, ValueError) as error:
        raise ReportError(f"{path}: columns cannot be read ({error}); run `atmanrl test` again.") from error


def _setting(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    setting = figures.get("setting")
    if not isinstance(setting, dict) or not setting:
        return {}
    marked = setting.get("delimiter", DELIMITER)  # the default is not written down
    return {**setting, "delimiter": marked.get("class_path") if isinstance(marked, dict) else marked}


def _number(value: object, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"{path}: {key} must be a number, got {value!r}")
    return float(value)
