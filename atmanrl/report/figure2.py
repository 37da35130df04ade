"""Figure 2: accuracy and length of the reasoning over training, smoothed, with the raw values behind.

Drawn on `matplotlib.figure.Figure` objects alone, and with the same bytes each time. No torch here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import atomic_file
from atmanrl.report.curves import PANELS, Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[str, Curve]]
"""Run -> column of `metrics.csv` -> curve."""

INK = "#5d6770"
"""Of text and axes in the files; a page shows its own text colour instead."""

BASELINE, COLOURS = "#8a939b", ("#d1495b", "#2f86b5", "#d98e2b", "#4f9d69", "#8f6bb3", "#b0637e")
"""The baseline is grey, the others take these in turn; all of them show on a white and on a dark ground."""

DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
"""Runs differ by their dashes too, for eyes and printers that do not tell the colours apart."""

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "atmanrl", "font.family": "sans-serif"}


def draw(curves: Curves, baseline: str | None = None, panels: Iterable[str] = tuple(PANELS)) -> Figure | None:
    """Draw Figure 2 of some runs; None where no run has any of the panels.

    Args:
        curves: of each run; one that lacks a panel is missing there.
        baseline: the run drawn in grey.
        panels: keys of `PANELS`, side by side.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'atmanrl[figures]'.") from error
    shown = [panel for panel in panels if any(panel in curve for curve in curves.values())]
    if not shown:
        return None
    # one alone is for a page, where a phone shows it small
    size = (4.6 * len(shown) + 0.4, 3.3) if len(shown) > 1 else (4.0, 3.0)
    figure = Figure(figsize=size, layout="constrained")
    lines: dict[str, Any] = {}
    for axis, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for run, (colour, dashes) in styles(curves, baseline).items():
            if curve := curves[run].get(panel):
                axis.plot(curve.updates, curve.values, color=colour, linewidth=0.8, alpha=0.35, zorder=1)
                smooth = curve.smoothed()
                lines[run] = axis.plot(curve.updates, smooth, color=colour, linewidth=2, linestyle=dashes, zorder=2)[0]
        _tidy(axis, PANELS[panel])
    # labels are passed here: a line's own label with a leading underscore would be left out
    legend = figure.legend(
        list(lines.values()), [escape.figure(run) for run in lines], loc="outside upper center", ncols=min(3, len(lines)),
        frameon=False, fontsize=9, handlelength=2.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def styles(runs: Iterable[str], baseline: str | None) -> dict[str, tuple[str, Any]]:
    """Return each run's colour and dashes."""
    chosen: dict[str, tuple[str, Any]] = {}
    for run in runs:
        others = sum(name != baseline for name in chosen)
        if run == baseline:
            chosen[run] = (BASELINE, "-")
        else:
            chosen[run] = (COLOURS[others % len(COLOURS)], DASHES[others % len(DASHES)])
    return chosen


def save(figure: Figure, path: Path, fonttype: str = "none") -> None:
    """Write a figure; the ending of `path` says in which format. The same figure gives the same bytes.

    Args:
        figure: to be written.
        path: its file.
        fonttype: how SVG keeps text: `none` as text, which takes a font of the reader's; `path` as shapes.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE | {"svg.fonttype": fonttype}):  # type: ignore[arg-type]
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {})


def inline(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an `<svg>` element for a page: in the page's text colour, as wide as there is room.

    Args:
        figure: from `draw`.
        name: put before its ids, which must be unique in a page; letters alone.
        label: what a screen reader says.
    """
    import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", written.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :]
    opening, rest = svg.split(">", 1)
    # a page needs no namespaces, and its own style gives the size
    box = re.search(r'viewBox="[^"]*"', opening)
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", rest).replace(INK, "currentColor")
    return f'<svg role="img" aria-label="{escape.html(label)}" {box.group() if box else ""}>{rest}'


def _tidy(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10, color=INK)
    axis.set_xlabel("update", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    axis.margins(x=0.02)
    for edge, spine in axis.spines.items():
        spine.set_visible(edge in ("left", "bottom"))
        spine.set_color(INK)
