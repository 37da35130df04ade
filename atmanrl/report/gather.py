"""Everything that a report shows, gathered from the folders of some runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atmanrl.errors import UserError
from atmanrl.metrics.per_problem import Floats
from atmanrl.report.answers import Answer, read_answers, read_probed
from atmanrl.report.comparisons import Comparisons, KnownSaliency, compare
from atmanrl.report.curves import Curve, read_curves
from atmanrl.report.intervals import Sums, draws, sums
from atmanrl.report.runs import ReportError, Row, Run, columns, comparable, load, title
from atmanrl.report.table1 import Table1, build
from atmanrl.report.words import Words


@dataclass
class Report:
    """What the folders of some runs hold.

    Attributes:
        runs: in the order given.
        baseline: the name of the run compared with.
        notes: what a reader should know.
        table1: None where no run was tested.
        curves: of every run that logged any.
        comparisons: problems that several policies answered.
        classes: whether the words' classes are known.
    """

    runs: list[Run]
    baseline: str
    notes: list[str] = field(default_factory=list)
    table1: Table1 | None = None
    curves: dict[str, Mapping[str, Curve]] = field(default_factory=dict)
    comparisons: Comparisons = field(default_factory=lambda: Comparisons([], None))
    classes: bool = True


def gather(folders: Sequence[Path], baseline: str | None = None, examples: int = 12) -> Report:
    """Reads everything that a report shows.

    Args:
        folders: of the runs.
        baseline: the name of the run compared with; None for the last one.
        examples: problems shown side by side, at most.

    Raises:
        ReportError: a folder or a file is unusable, or the runs cannot be compared; the message says what to do.
    """
    runs = load(folders)
    names = [run.name for run in runs]
    named = title(baseline) if baseline is not None else names[-1]
    if named not in names:
        raise ReportError(f"no run is called '{named}'; there are: {', '.join(names)}.")
    report = Report(runs, named)
    tested = [run for run in runs if run.row is not None]
    report.notes += comparable(tested)
    for run in runs:
        curves, notes = read_curves(run.folder)
        report.notes += notes
        if curves:
            report.curves[run.name] = curves
        if run.row is None:
            report.notes.append(f"{run.name} was not tested and has no row in Table 1: run `atmanrl test` on it.")
    if tested:
        _tests(report, tested, examples)
    elif not report.curves:
        raise ReportError(
            f"there is nothing to report on {', '.join(str(run.folder) for run in runs)}: no run was tested (`atmanrl "
            "test`), and no metrics.csv holds a curve."
        )
    return report


def _tests(report: Report, tested: Sequence[Run], examples: int) -> None:
    """Table 1 and the answers side by side."""
    words: Words | None = Words(next((run.pipeline for run in tested if run.pipeline), None))
    answers: dict[str, list[Answer]] = {}
    tests: dict[str, Sums] = {}
    for run in tested:
        given = read_answers(run.folder)
        counts: npt.NDArray[np.int64] | None = None
        try:
            counts = words.counts([answer.cot for answer in given]) if words else None
        except UserError as error:
            words, report.classes = None, False
            report.notes.append(f"No classes of words, and no intervals of their shares: {error}")
        assert run.row is not None
        of = sums(given, counts, run.row)
        if not given:
            report.notes.append(
                f"{run.name} kept no rollouts of its test (eval/test.jsonl): its figures have no intervals."
            )
        elif differing := _differing(of.metrics(), run.row):
            report.notes.append(
                f"{run.folder / 'eval' / 'test.jsonl'} is not of the test in test.json ({', '.join(differing)} differ), "
                "so there are no intervals and no answers of this run: run `atmanrl test` again."
            )
        else:
            answers[run.name], tests[run.name] = given, of
    rows: dict[str, Row] = {run.name: run.row for run in tested if run.row is not None}
    if report.baseline not in rows:
        report.notes.append(f"The baseline, {report.baseline}, was not tested: Table 1 shows no changes.")
    drawn: dict[str, dict[str, Floats]] = {name: draws(of) for name, of in tests.items()}
    tagger = next((str(run.setting["tagger"]) for run in tested if run.setting.get("tagger")), None)
    report.table1 = build(rows, report.baseline if report.baseline in rows else None, drawn, tagger, columns(tested))
    problems = {name: set(of.problems) for name, of in tests.items()}
    if len({frozenset(names) for names in problems.values()}) > 1:
        common = len(set.intersection(*problems.values()))
        sizes = ", ".join(f"{name}: {len(names)}" for name, names in problems.items())
        report.notes.append(
            f"The runs were tested on different problems ({sizes}; {common} in common), so the choice of problems is "
            "part of every change; the changes' intervals allow for it."
        )
    probed: dict[str, KnownSaliency] = {run.name: read_probed(run.folder) for run in tested if run.name in answers}
    report.comparisons = compare(answers, probed, words, examples)


def _differing(figures: Row, row: Row) -> list[str]:
    """The figures that are not those of the table; they were written in single precision."""
    return [
        key
        for key, value in figures.items()
        if not (math.isnan(value) and math.isnan(row[key])) and not math.isclose(value, row[key], rel_tol=1e-3, abs_tol=1e-3)
    ]  # fmt: skip
