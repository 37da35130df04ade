"""A trace in the terminal: its reasoning coloured by saliency, or as plain text with a bar beneath every token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atmanrl.io import escape
from atmanrl.io.terminal import encodable
from atmanrl.views.trace_page import Span, TraceView, colour_scale, spans

if TYPE_CHECKING:
    from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 100
"""Cells in a line of plain text."""

WHITE, ABOVE, BELOW = (255, 255, 255), (224, 110, 96), (110, 165, 220)
"""Backgrounds of no colour, and of full colour above and below 0; the text on them is black."""

FAINTEST = 0.1
"""Smallest share of full colour that is shown; below it a token has the terminal's own background."""


def coloured(view: TraceView, encoding: str | None = None) -> Text:
    """Return a trace for rich's console: header, reasoning on a coloured background, gold answer, note.

    Args:
        view: the trace.
        encoding: of the terminal; characters that it lacks are replaced (see `terminal.encodable`). None lacks nothing.

    Raises:
        UserError: the trace has not one saliency for each token.
    """
    from rich.text import Text  # for the terminal alone; a machine that trains need not have it

    text = Text()
    text.append(encodable(escape.line(header(view)), encoding) + "\n", style="bold")
    for token, share, _ in spans(view, colour_scale([view])):
        text.append(encodable(escape.terminal(token), encoding), style=_style(share))
    for line in _below(view):
        text.append("\n" + encodable(escape.line(line), encoding), style="dim")
    return text


def plain(view: TraceView, encoding: str | None = None) -> str:
    """Return a trace for `print`: header, reasoning with bars beneath for saliencies above 0, gold answer, note.

    Args:
        view: the trace.
        encoding: as in `coloured`; bars are as wide as the text that replaces a token.

    Raises:
        UserError: the trace has not one saliency for each token.
    """
    from rich.cells import cell_len

    lines = [encodable(escape.line(header(view)), encoding)]
    above = beneath = ""
    for text, share in _units(spans(view, colour_scale([view])), encoding):
        if above and (text == "\n" or cell_len(above + text) > WIDTH):
            lines += [above, beneath.rstrip()]
            above = beneath = ""
        if text != "\n":
            above += text
            bar = encodable(BARS[round(max(share, 0.0) * (len(BARS) - 1))], encoding)
            blank = len(text) - len(text.lstrip())
            # the space before a word is no part of its bar
            beneath += " " * blank + bar * cell_len(text[blank:])
    lines += [above, beneath.rstrip()] if above else []
    below = [encodable(escape.line(line), encoding) for line in _below(view)]
    return "\n".join([line for line in lines if line] + below)


def header(view: TraceView) -> str:
    """Return a line of numbers about the trace; what is not known is left out."""
    parts = [view.id]
    if view.reward is not None:
        parts.append(f"saliency reward {view.reward:.3f}")
    if view.loss_initial is not None and view.loss_final is not None:
        parts.append(f"answer loss {view.loss_initial:.3f} -> {view.loss_final:.3f} nats")
    parts.append(f"{len(view.token_texts)} tokens")
    return " | ".join(parts)


def _units(texts: list[Span], encoding: str | None) -> list[tuple[str, float]]:
    """Return texts and shares, line ends on their own; what does not print is replaced by its escape."""
    units: list[tuple[str, float]] = []
    for text, share, _ in texts:
        for number, part in enumerate(text.split("\n")):
            if number:
                units.append(("\n", 0.0))
            if part:
                units.append((encodable(escape.line(part), encoding), share))
    return units


def _below(view: TraceView) -> list[str]:
    """Return the lines beneath a reasoning."""
    return [_answers(view), *([view.note] if view.note else [])]


def _answers(view: TraceView) -> str:
    answers = {"answer": view.answer, "gold": view.gold}
    parts = [f"{name} {text}" for name, text in answers.items() if text is not None]
    if values := [value for value in view.saliency or () if math.isfinite(value)]:
        parts.append(f"tokens from {min(values):.3f} to {max(values):.3f}")
    return " | ".join(parts)


def _style(share: float) -> str:
    if abs(share) < FAINTEST:
        return ""
    full = ABOVE if share > 0 else BELOW
    red, green, blue = (round(a + (b - a) * abs(share)) for a, b in zip(WHITE, full, strict=True))
    return f"black on rgb({red},{green},{blue})"
