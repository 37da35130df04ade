"""A trace in the terminal: its reasoning coloured by saliency, or in plain text with a bar beneath every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atmanrl import escape
from atmanrl.report.trace_page import Span, TraceView, colour_scale, spans

if TYPE_CHECKING:
    from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 100
"""Cells in a line of plain text."""

PALE, FULL = (255, 243, 224), (240, 128, 32)
"""Backgrounds of the least and of the largest share that are coloured at all; the text on them is black."""

FAINTEST = 0.1
"""Below this share a token has the terminal's own background."""


def coloured(view: TraceView) -> Text:
    """A trace for rich's console: header, reasoning on coloured ground, gold answer.

    Raises:
        UserError: the trace has not one saliency for each piece.
    """
    from rich.text import Text  # for the terminal alone; a machine that trains need not have it

    text = Text()
    text.append(escape.line(header(view)) + "\n", style="bold")
    for piece, share, _ in spans(view, colour_scale([view])):
        text.append(escape.terminal(piece), style=_style(share))
    return text.append("\n" + escape.terminal(_answers(view)), style="dim")


def plain(view: TraceView) -> str:
    """A trace for `print`: header, reasoning with its saliency as bars beneath, gold answer.

    Raises:
        UserError: the trace has not one saliency for each piece.
    """
    from rich.cells import cell_len

    lines = [escape.line(header(view))]
    above = beneath = ""
    for text, share in _units(spans(view, colour_scale([view]))):
        if above and (text == "\n" or cell_len(above + text) > WIDTH):
            lines += [above, beneath.rstrip()]
            above = beneath = ""
        if text != "\n":
            above += text
            bar = BARS[round(share * (len(BARS) - 1))]
            blank = len(text) - len(text.lstrip())
            # the space before a word is no part of its bar
            beneath += " " * blank + bar * cell_len(text[blank:])
    lines += [above, beneath.rstrip()] if above else []
    return "\n".join([line for line in lines if line] + [escape.terminal(_answers(view))])


def header(view: TraceView) -> str:
    """One line of figures; what is not known is left out."""
    parts = [view.id]
    if view.reward is not None:
        parts.append(f"saliency reward {view.reward:.3f}")
    if view.loss_initial is not None and view.loss_final is not None:
        parts.append(f"answer loss {view.loss_initial:.3f} -> {view.loss_final:.3f} nats")
    parts.append(f"{len(view.pieces)} tokens")
    return " | ".join(parts)


def _units(found: list[Span]) -> list[tuple[str, float]]:
    """Texts and shares, line ends by themselves; what does not print is shown as its escape."""
    units: list[tuple[str, float]] = []
    for text, share, _ in found:
        for number, part in enumerate(text.split("\n")):
            if number:
                units.append(("\n", 0.0))
            if part:
                units.append((escape.line(part), share))
    return units


def _answers(view: TraceView) -> str:
    said = f"answer {view.answer} | " if view.answer is not None else ""
    low, high = colour_scale([view])
    scale = f" | tokens from {low:.3f} to {high:.3f}" if view.saliency else ""
    return f"{said}gold {view.gold}{scale}"


def _style(share: float) -> str:
    if share < FAINTEST:
        return ""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(PALE, FULL, strict=True))
    return f"black on rgb({red},{green},{blue})"
