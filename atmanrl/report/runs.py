"""A run's folder as a report reads it: its name, the metrics of its test, and what these depend on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from atmanrl.errors import UserError
from atmanrl.io import jsonl
from atmanrl.metrics import conditions
from atmanrl.metrics.columns import Column, merged, unrecorded
from atmanrl.metrics.conditions import Condition

Values = dict[str, float]
"""The metrics of one run by key, in their own units; NaN where one is not defined."""

MARKS = ("config.yaml", "metrics.csv", "eval/test.json")
"""A folder with none of these is no run's folder."""

BASELINE_RULE = "the run that others are compared with (default: the one called baseline, else the last)"
"""What the commands' helps say of `baseline_of`."""

T = TypeVar("T", Column, Condition)


class ReportError(UserError):
    """A run cannot be reported; the message names the file and says what to do."""


@dataclass(frozen=True)
class Run:
    """One run.

    Example:
        `Run("warm start", Path("runs/demo/warm_start"), {"pass_at_1": 0.73}, {"task": "WordProblems"},
        {"task": Condition("tasks", "task {}", must_agree=True)}, {"pass_at_1": Column("pass@1 %", True, "points")})`

    Attributes:
        name: the folder's name with spaces for underscores; a table's row is named by it.
        folder: where it lies.
        values: the metrics of its test, None where it was not tested.
        setting: what the test depended on, as texts by the keys of `conditions`; empty where nobody wrote that down.
        conditions: how to speak of the setting, by key.
        columns: how the values are shown, by key.
    """

    name: str
    folder: Path
    values: Values | None
    setting: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)


def columns(runs: Iterable[Run]) -> dict[str, Column]:
    """Return the columns of all runs.

    Raises:
        ReportError: a column is of different kinds in two of them.
    """
    try:
        return merged(run.columns for run in runs)
    except ValueError as error:
        raise ReportError(f"these runs cannot stand in one table: {error}; leave some out.") from error


def load_values(run: Path) -> Values:
    """Read the values that Table 1 shows from a run's `eval/test.json`; other keys there are passed over, null is NaN.

    Args:
        run: the run's folder.

    Raises:
        ReportError: the file is missing, is not a JSON object, or lacks a metric.
    """
    return _tested("", run).values or {}


def load_tested(folders: Sequence[Path]) -> list[Run]:
    """Load runs that must have been tested.

    Raises:
        ReportError: as `load_values`; a folder does not exist or is no run's folder; two runs have one name.
    """
    return [_tested(name, _checked(folder)) for name, folder in _named(folders).items()]


def load(folders: Sequence[Path]) -> list[Run]:
    """Load runs of which some may have been trained and not yet tested.

    Raises:
        ReportError: a folder does not exist or is no run's folder; two runs have one name; a test's file is unusable.
    """
    runs = []
    for name, folder in _named(folders).items():
        _checked(folder)
        runs.append(_tested(name, folder) if (folder / "eval" / "test.json").exists() else Run(name, folder, None))
    return runs


def baseline_of(runs: Sequence[Run], name: str | None = None) -> str:
    """Choose the run that others are compared with: the one of this name, else the one called baseline, else the last.

    Raises:
        ReportError: no run has this name.
    """
    names = [run.name for run in runs]
    if name is None:
        return "baseline" if "baseline" in names else names[-1]
    if title(name) not in names:
        raise ReportError(f"no run is called '{title(name)}'; there are: {', '.join(names)}.")
    return title(name)


def conditions_of(runs: Iterable[Run]) -> dict[str, tuple[Condition, dict[str, list[str]]]]:
    """Return each condition of some tests by key, and each value of the setting there with the names of its runs."""
    each: dict[str, tuple[Condition, dict[str, list[str]]]] = {}
    for run in runs:
        for key, value in run.setting.items():
            each.setdefault(key, (run.conditions[key], {}))[1].setdefault(value, []).append(run.name)
    return each


def comparable(runs: Sequence[Run]) -> list[str]:
    """Return notes on how the tests of some runs differ.

    Raises:
        ReportError: they differ in a condition that must agree (the task, say), so that no values could be compared.
    """
    notes = []
    for condition, values in conditions_of(runs).values():
        if len(values) > 1:
            who = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
            if condition.must_agree:
                raise ReportError(
                    f"these runs were tested with different {condition.plural} ({who}); test them alike, or leave some out."
                )
            notes.append(f"The tests had different {condition.plural} ({who}), so part of a change may come from that.")
    return notes


def _checked(folder: Path) -> Path:
    """Return a folder that is a run's."""
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder; give the folder of a run (its trainer.default_root_dir).")
    if not any((folder / mark).exists() for mark in MARKS):
        raise ReportError(f"{folder} is no run's folder: it has none of {', '.join(MARKS)}.")
    return folder


def title(name: str) -> str:
    """Return a folder's name as a row's name."""
    return name.replace("_", " ")


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


def _tested(name: str, folder: Path) -> Run:
    path = folder / "eval" / "test.json"
    test = _read(path)
    columns = _recorded(test, "columns", Column.from_json, path)
    if columns is None:
        columns = unrecorded(test)
    if missing := [key for key in columns if key not in test]:
        raise ReportError(f"{path} lacks {', '.join(missing)}: run `atmanrl test` again")
    recorded = _recorded(test, "conditions", Condition.from_json, path)
    used = conditions.UNRECORDED if recorded is None else recorded
    setting = test.get("setting")
    if not isinstance(setting, dict) or not setting:
        setting, used = {}, {}
    texts = {key: text for key, condition in used.items() if (text := condition.shown(setting.get(key))) is not None}
    return Run(name, folder, {key: _number(test[key], key, path) for key in columns}, texts, used, columns)


def _read(path: Path) -> dict[str, Any]:
    try:
        return jsonl.parse(path.read_bytes())
    except FileNotFoundError:
        raise ReportError(f"{path} does not exist: run `atmanrl test` on this run first") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    except jsonl.RowError as error:
        raise ReportError(f"{path}: {error} Run `atmanrl test` again.") from error


def _recorded(test: Mapping[str, Any], name: str, read: Callable[[Any], T], path: Path) -> dict[str, T] | None:
    """What the evaluation recorded under a name; None where it did not."""
    if name not in test:
        return None
    try:
        return {key: read(value) for key, value in dict(test[name]).items()}
    except (TypeError, ValueError) as error:
        raise ReportError(f"{path}: {name} cannot be read ({error}); run `atmanrl test` again.") from error


def _number(value: object, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"{path}: {key} must be a number, got {value!r}")
    return float(value)
