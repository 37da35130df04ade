"""The report as one page that needs nothing else: Table 1, Figure 2, and the answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from atmanrl.report.comparisons import Comparisons
from atmanrl.report.table1 import Table1
from atmanrl.report.table1_formats import caption
from atmanrl.views.trace_page import template

LEGEND = (("number", "number"), ("symbol", "symbol"), ("stop", "stop word"), ("other", "other"))
"""The classes of words with what the legend calls them."""


@dataclass(frozen=True)
class Contents:
    """What a report shows; what is empty or None is left out.

    Example: `Contents("The laptop demo", "atmanrl 0.1.0 · task WordProblems", table1=table1)`

    Attributes:
        title: of the page.
        intro: a line beneath it.
        conclusions: sentences that the page opens with.
        settings: sentences behind them.
        files: names of the files beside the page, which it links to.
        notes: what a reader should know before the table.
        table1: Table 1.
        plots: Figure 2's panels as `<svg>` elements from `figure2.inline`, put into the page as they are.
        plots_caption: beneath them.
        comparisons: Figures 3 and on.
        comparisons_caption: above them.
        classes: whether the words' classes are known.
    """

    title: str
    intro: str = ""
    conclusions: Sequence[str] = ()
    settings: Sequence[str] = ()
    files: Sequence[str] = ()
    notes: Sequence[str] = ()
    table1: Table1 | None = None
    plots: Sequence[str] = ()
    plots_caption: str = ""
    comparisons: Comparisons = field(default_factory=lambda: Comparisons([], None))
    comparisons_caption: str = ""
    classes: bool = True


def page(contents: Contents) -> str:
    """Return the HTML document. Every text is escaped; `plots` alone are taken for markup."""
    table1, scale = contents.table1, contents.comparisons.scale
    document = template("report_page.html.jinja").render(
            title=contents.title, intro=contents.intro, notes=contents.notes, conclusions=contents.conclusions,
            settings=contents.settings, files=contents.files,
            columns=table1.titles if table1 else [], caption=caption(table1) if table1 else "",
            directions=[column.direction for column in table1.columns.values()] if table1 else [],
            table=[(name, list(row.values())) for name, row in table1.rows.items()] if table1 else [],
            plots=[Markup(plot) for plot in contents.plots], plots_caption=contents.plots_caption,
            items=contents.comparisons.items, items_caption=contents.comparisons_caption,
            scale=f"{scale:.3f}" if scale is not None else None, classes=LEGEND if contents.classes else (),
        )  # fmt: skip
    return str(document).lstrip()
