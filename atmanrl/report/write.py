"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from atmanrl import __version__
from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write
from atmanrl.io.folders import check_fillable, mark
from atmanrl.io.run_layout import POLICY
from atmanrl.report import figure2, figure3, table1_formats
from atmanrl.report.comparisons import TYPICAL
from atmanrl.report.conclusion import conclusions
from atmanrl.report.curves import PANELS
from atmanrl.report.gather import Report
from atmanrl.report.intervals import SEED
from atmanrl.report.report_page import Contents, page
from atmanrl.report.rollouts import PROBED
from atmanrl.report.run_settings import settings_sentences
from atmanrl.report.runs import conditions_of
from atmanrl.report.table1 import write_json

COMMAND = "report"
"""Whose mark a report's folder bears."""
FILES = (
    "index.html", "table1.md", "table1.tex", "table1.json",
    *(f"figure{number}.{ending}" for number in range(2, 3 + TYPICAL) for ending in ("png", "svg")),
)  # fmt: skip
"""What a report may write."""


def may_write(out: Path) -> None:
    """Refuse a folder in which a report would replace what no report wrote.

    Raises:
        FileError: `out` is no folder, or holds a file of one of the names in `FILES` and is no report's.
    """
    check_fillable(out, COMMAND, FILES)


def write(report: Report, out: Path, heading: str) -> list[Path]:
    """Write the report's files into a folder, which is created where it is missing; other files there stay.

    An earlier report's files are replaced, those that this one lacks are removed.

    Returns:
        The files written, `index.html` first.

    Raises:
        FileError: as `may_write`.
        OSError: a file cannot be written.
    """
    may_write(out)
    figures, plots = {}, []
    typical = [item for item in report.comparisons.items if item.typical]
    try:
        if curves := figure2.draw(report.curves, report.baseline):
            figures["figure2"] = curves, "none"
        for number, item in enumerate(typical, start=3):
            # as text, words would leave their grounds in a reader's own font
            figures[f"figure{number}"] = figure3.draw(item, report.comparisons.scale), "path"
        for number, panel in enumerate(PANELS):
            if single := figure2.draw(report.curves, report.baseline, [panel]):
                label = f"{PANELS[panel]}, over the updates of {', '.join(report.curves)}"
                plots.append(figure2.inline(single, f"panel{number}", label))
    except UserError as error:
        report.notes.append(f"The figures are missing: {error}")
    tables = [name for name in FILES if name.startswith("table1")] if report.table1 else []
    contents = Contents(
        title=heading, intro=_intro(report), conclusions=conclusions(report.table1) if report.table1 else [],
        settings=settings_sentences(report.runs), files=[*tables, *(f"{name}.png" for name in figures)],
        notes=report.notes, table1=report.table1, plots=plots,
        plots_caption=_plots_caption(report), comparisons=report.comparisons, comparisons_caption=_answers_caption(report),
        classes=report.classes,
    )  # fmt: skip
    # first, should the rest be interrupted
    mark(out, COMMAND)
    texts = {"index.html": page(contents)}
    if report.table1:
        texts["table1.md"] = table1_formats.markdown(report.table1)
        texts["table1.tex"] = table1_formats.latex(report.table1)
    for name, text in texts.items():
        with atomic_write(out / name) as file:
            file.write(text)
    written = [out / name for name in texts]
    if report.table1:
        write_json(table1_formats.as_json(report.table1), out / "table1.json")
        written.append(out / "table1.json")
    for name, (figure, fonttype) in figures.items():
        for ending in ("png", "svg"):
            figure2.save(figure, out / f"{name}.{ending}", fonttype)
            written.append(out / f"{name}.{ending}")
    for name in FILES:
        if out / name not in written:
            # an earlier report's would pass for this one's
            (out / name).unlink(missing_ok=True)
    return written


def _intro(report: Report) -> str:
    """What the tests depended on, as far as all that know it agree and it is not the default."""
    phrases = [
        condition.phrase.replace("{}", next(iter(values)))
        for condition, values in conditions_of(report.runs).values()
        if condition.phrase and len(values) == 1 and condition.default not in values
    ]
    return " · ".join([f"atmanrl {__version__}", *phrases])


def _plots_caption(report: Report) -> str:
    windows = sorted({curve.window for curves in report.curves.values() for curve in curves.values()})
    over = " or ".join(map(str, windows))
    return f"Of the rollouts trained on. Strong lines: running means over {over} updates; faint lines: each update."


def _answers_caption(report: Report) -> str:
    typical = sum(item.typical for item in report.comparisons.items)
    parts = []
    if typical:
        which = f"Figures 3 to {2 + typical} are" if typical > 1 else "Figure 3 is"
        parts.append(f"{which} typical: chosen because every run answers rightly there, in about its own mean length.")
    if len(report.comparisons.items) > typical:
        others = "The others" if typical else "Problems"
        parts.append(f"{others} are drawn at random (seed {SEED}) from all that every run was tested on, first sample.")
    if report.comparisons.scale:
        parts.append(
            "Problems whose saliency is known come first. A click, or the arrow keys, tell a token's saliency."
        )
    else:
        run = report.runs[0].folder
        parts.append(
            f"No saliency is known: `atmanrl probe --model {run / POLICY} --traces {run / 'eval' / 'test.jsonl'} --out "
            f"{run / PROBED.parent} --limit 40 --probe.solver=adaptive` measures some, for each run alike."
        )
    return " ".join(parts)
