"""Everything that a report shows, gathered from the folders of some runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atmanrl.errors import UserError
from atmanrl.metrics.word_classes import WordClasses
from atmanrl.report.comparisons import Comparisons, KnownSaliency, compare
from atmanrl.report.curves import Curve, read_curves
from atmanrl.report.intervals import Sums, draws, sums
from atmanrl.report.rollouts import StoredRollout, read_rollouts, read_saliencies
from atmanrl.report.runs import ReportError, Run, Values, baseline_of, columns, comparable, conditions_of, load
from atmanrl.report.table1 import Table1, build


@dataclass
class Report:
    """What the folders of some runs hold.

    Example: `gather([Path("runs/demo/atmanrl"), Path("runs/demo/baseline")])`

    Attributes:
        runs: in the order of their folders.
        baseline: the name of the run that others are compared with.
        notes: what a reader should know.
        table1: None where no run was tested.
        curves: of every run that logged any.
        comparisons: problems that several policies answered.
        classes: whether the classes of words are known.
    """

    runs: list[Run]
    baseline: str
    notes: list[str] = field(default_factory=list)
    table1: Table1 | None = None
    curves: dict[str, Mapping[str, Curve]] = field(default_factory=dict)
    comparisons: Comparisons = field(default_factory=lambda: Comparisons([], None))
    classes: bool = True


def gather(folders: Sequence[Path], baseline: str | None = None, examples: int = 12) -> Report:
    """Read everything that a report shows.

    Args:
        folders: of the runs.
        baseline: the name of the run that others are compared with; None chooses as `baseline_of` says.
        examples: problems shown side by side, at most.

    Raises:
        ReportError: a folder or a file is unusable, or the runs cannot be compared; the message says what to do.
    """
    runs = load(folders)
    report = Report(runs, baseline_of(runs, baseline))
    tested = [run for run in runs if run.values is not None]
    report.notes += comparable(tested)
    for run in runs:
        curves, notes = read_curves(run.folder)
        report.notes += notes
        if curves:
            report.curves[run.name] = curves
        if run.values is None:
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
    """Add Table 1 and the rollouts side by side."""
    rollouts: dict[str, list[StoredRollout]] = {}
    tests: dict[str, Sums] = {}
    values: dict[str, Values] = {}
    for run in tested:
        assert run.values is not None
        values[run.name] = run.values
        stored = read_rollouts(run.folder)
        test = sums(stored, run.values)
        if not stored:
            report.notes.append(
                f"{run.name} kept no rollouts of its test (eval/test.jsonl): its values have no intervals."
            )
        elif differing := _differing(test.values(), run.values):
            report.notes.append(
                f"{run.folder / 'eval' / 'test.jsonl'} is not of the test in test.json ({', '.join(differing)} differ), "
                "so there are no intervals and no answers of this run: run `atmanrl test` again."
            )
        else:
            rollouts[run.name] = stored
            if test.fractions:
                tests[run.name] = test
            else:
                report.notes.append(
                    f"{run.name} was tested by an earlier version, which did not store what each rollout adds to the "
                    "metrics: its values have no intervals until you run `atmanrl test` again."
                )
    if report.baseline not in values:
        report.notes.append(f"The baseline, {report.baseline}, was not tested: Table 1 shows no changes.")
    report.table1 = build(
        values, report.baseline if report.baseline in values else None, columns(tested),
        {name: draws(test) for name, test in tests.items()}, conditions_of(tested),
    )  # fmt: skip
    problems = {name: set(test.problems) for name, test in tests.items()}
    if len({frozenset(names) for names in problems.values()}) > 1:
        common = len(set.intersection(*problems.values()))
        sizes = ", ".join(f"{name}: {len(names)}" for name, names in problems.items())
        report.notes.append(
            f"The runs were tested on different problems ({sizes}; {common} in common), so the choice of problems is "
            "part of every change; the changes' intervals allow for it."
        )
    saliencies: dict[str, KnownSaliency] = {run.name: read_saliencies(run.folder) for run in tested}
    report.comparisons = compare(rollouts, saliencies, _word_classes(report, tested), examples)


def _word_classes(report: Report, tested: Sequence[Run]) -> WordClasses | None:
    """What tells the words' classes apart; None, and a note, where it is not installed."""
    words = WordClasses.of(run.setting for run in tested)
    try:
        words.tagger  # noqa: B018 (loads it)
    except UserError as error:
        report.classes = False
        report.notes.append(f"No classes of words: {error}")
        return None
    return words


def _differing(sums: Values, values: Values) -> list[str]:
    """The metrics whose sums are not what the test wrote, in single precision."""
    return [
        key
        for key, value in sums.items()
        if not (math.isnan(value) and math.isnan(values[key]))
        and not math.isclose(value, values[key], rel_tol=1e-3, abs_tol=1e-3)
    ]
