"""A run's folder as a report reads it: its name, the figures of its test, and what these depend on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atmanrl import jsonl
from atmanrl.errors import UserError
from atmanrl.tasks import DELIMITER

Row = dict[str, float]
"""The figures of one method, the keys of `columns`; NaN where a figure is not defined. Those at k are from 0 to 1."""

FIGURES = {
    "tokens_per_cot": "tokens / CoT",
    "numbers_pct": "numbers %",
    "stop_words_pct": "stop words %",
    "symbols_pct": "symbols %",
    "pass_at_1": "pass@1 %",
}
"""Key in `eval/test.json` -> column title, of the figures that every test has. Shares are in per cent of the tokens."""

_AT_K = re.compile(r"(pass|majority)_at_([1-9][0-9]*)")

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
    """

    name: str
    folder: Path
    row: Row | None
    setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> str | None:
        """The spaCy pipeline that tagged its test; None for the lexical rules."""
        tagger = self.setting.get("tagger")
        return tagger if isinstance(tagger, str) and tagger != LEXICAL else None


def columns(rows: Iterable[Row]) -> dict[str, str]:
    """Key -> column title of all the figures that some rows have: `FIGURES`, then pass@k and majority@k, k rising."""
    found = {match for row in rows for key in row if (match := at_k(key)) and key not in FIGURES}
    ordered = sorted(found, key=lambda match: (match[0] != "pass", match[1]))
    return {**FIGURES, **{f"{name}_at_{k}": f"{name}@{k} %" for name, k in ordered}}


def at_k(key: str) -> tuple[str, int] | None:
    """`pass_at_4` as ("pass", 4), `majority_at_4` alike; None for other figures."""
    match = _AT_K.fullmatch(key)
    return (match[1], int(match[2])) if match else None


def load_row(run: Path) -> Row:
    """Reads the figures of Table 1 from a run's `eval/test.json`; other keys there are ignored, null is NaN.

    Args:
        run: the run's folder.

    Raises:
        ReportError: the file is missing, is not a JSON object, or lacks a figure.
    """
    return _row(_read_test(run), run)


def load_tested(folders: Sequence[Path]) -> list[Run]:
    """Runs that must have been tested.

    Raises:
        ReportError: as `load_row`; two runs have one name.
    """
    named = _named(folders)
    tests = {name: _read_test(folder) for name, folder in named.items()}
    return [Run(name, folder, _row(tests[name], folder), _setting(tests[name])) for name, folder in named.items()]


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
        test = _read_test(folder) if (folder / "eval" / "test.json").exists() else None
        runs.append(Run(name, folder, _row(test, folder) if test else None, _setting(test or {})))
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


def _row(figures: Mapping[str, Any], run: Path) -> Row:
    path = run / "eval" / "test.json"
    missing = [key for key in FIGURES if key not in figures]
    if missing:
        raise ReportError(f"{path} lacks {', '.join(missing)}: run `atmanrl test` again")
    return {key: _number(figures[key], key, path) for key in (*FIGURES, *filter(at_k, figures))}


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
