"""Figures 3 to 5: one problem answered by several policies side by side, each word on the colour of its class.

Where a policy's saliency is known, its reasoning stands a second time, its tokens coloured by that. For papers and
slides; a report's page shows the same and more. No torch here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.report.comparisons import Comparison, Side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = {"number": ("#bfe0fb", "number"), "symbol": ("#ffd9a6", "symbol"), "stop": ("#e3e5e8", "stop word")}
"""Class of a word -> its ground and its name; other words have none."""

ABOVE, BELOW, INK, DIM = (192, 57, 43), (46, 117, 182), "#1c1e21", "#62676e"
MOST_LINES = 60
"""Lines of a reasoning that are drawn; what is longer ends in an ellipsis."""

_SIZE, _CELL, _LINE = 8.5, 0.602 * 8.5 / 72, 1.55 * 8.5 / 72  # points; a cell's width and a line's height in inches
_WIDTH, _GAP, _EDGE = 9.6, 0.3, 0.15  # inches


_Mark = tuple[str, Any, str]
"""A character, its ground and its colour."""


@dataclass(frozen=True)
class _Run:
    """A piece of a line: where it begins in cells, its text, its ground (None for none) and its colour."""

    column: int
    text: str
    ground: Any
    ink: str


def draw(item: Comparison, scale: float | None = None) -> Figure:
    """Draw one problem's figure.

    Args:
        item: the problem with a rollout of each policy.
        scale: the size of a saliency that has full colour, for the legend.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'atmanrl[figures]'.") from error
    count = len(item.sides)
    width = (_WIDTH - 2 * _EDGE - (count - 1) * _GAP) / count
    cells = int(width / _CELL)
    prompt = escape.visible(item.prompt).splitlines()
    question = [line for part in prompt for line in textwrap.wrap(part, int(_WIDTH / _CELL) - 4)]
    blocks = [_by_class(side, cells) for side in item.sides]
    salient = (
        [_by_saliency(side, cells) for side in item.sides]
        if scale is not None and any(s.tokens for s in item.sides)
        else []
    )
    heights = [max(map(len, part)) for part in (blocks, salient) if part]
    lines = len(question) + 2.6 + sum(height + 2.4 for height in heights) - 0.8
    figure = Figure(figsize=(_WIDTH, lines * _LINE + 2 * _EDGE))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(lines * _LINE + 2 * _EDGE, 0)
    top = _EDGE + _LINE / 2
    for line in [*question, f"gold answer: {escape.line(item.gold)}"]:
        _write(axes, _EDGE, top, [_Run(0, line, None, DIM)])
        top += _LINE
    for place, side in enumerate(item.sides):
        verdict = "no answer"
        if side.answer is not None:
            verdict = f"{'right' if side.correct else 'wrong'}, answer {side.answer}"
        head = _cut(escape.line(f"{side.name}: {verdict}, {side.length} tokens"), cells)
        _write(axes, _EDGE + place * (width + _GAP), top + _LINE / 2, [_Run(0, head, None, INK)], weight="bold")
    top += 1.8 * _LINE
    for part, height, legend in zip([blocks, salient], heights, [_classes(), _scale(scale)], strict=False):
        for place, block in enumerate(part):
            for number, runs in enumerate(block):
                _write(axes, _EDGE + place * (width + _GAP), top + number * _LINE, runs)
        top += (height + 0.4) * _LINE
        _write(axes, _EDGE, top, legend)
        top += 2 * _LINE
    return figure


def _by_class(side: Side, cells: int) -> list[list[_Run]]:
    shown = ((text, CLASSES[kind][0] if kind in CLASSES else None, DIM if kind == "stop" else INK)
             for text, kind in side.words)  # fmt: skip
    return _wrapped(shown, cells)


def _by_saliency(side: Side, cells: int) -> list[list[_Run]]:
    if not side.tokens:
        return [[_Run(0, "saliency not known", None, DIM)]]
    return _wrapped(((text, _ground(share), INK) for text, share, _ in side.tokens), cells)


def _ground(share: float) -> Any:
    colour = ABOVE if share > 0 else BELOW
    return (*(part / 255 for part in colour), 0.72 * abs(share)) if share else None


def _classes() -> list[_Run]:
    return _row([(name, ground, DIM if kind == "stop" else INK) for kind, (ground, name) in CLASSES.items()], gap=2)


def _scale(scale: float | None) -> list[_Run]:
    full = scale or 0.0
    steps = [("  ", _ground(step / 6), INK) for step in range(-6, 7)]
    said = f" {full:.3f} (no colour is 0; 99 % of the tokens lie between the ends)"
    return _row([(f"saliency -{full:.3f} ", None, INK), *steps, (said, None, INK)])


def _row(parts: Iterable[_Mark], gap: int = 0) -> list[_Run]:
    """Texts one behind the other, `gap` cells apart."""
    line: list[_Run] = []
    for text, ground, ink in parts:
        line.append(_Run(_end(line) + gap if line else 0, text, ground, ink))
    return line


def _end(line: Sequence[_Run]) -> int:
    return line[-1].column + cell_len(line[-1].text) if line else 0


def _wrapped(parts: Iterable[_Mark], cells: int) -> list[list[_Run]]:
    """Coloured texts in lines of at most `cells` cells, broken at spaces where there are any, whatever the colours."""
    seen = ((c, ground, ink) for text, ground, ink in parts for c in escape.visible(text))
    marks = [(c if c.isprintable() or c == "\n" else " ", ground, ink) for c, ground, ink in seen]
    lines: list[list[_Mark]] = [[]]
    for word in _words(marks):
        if word[0][0] == "\n":
            lines.append([])
            word = word[1:]
        if lines[-1] and _wide(lines[-1]) + _wide(word) > cells:
            lines.append([])
            # no line begins with the spaces that it was broken at
            word = [mark for place, mark in enumerate(word) if any(c != " " for c, _, _ in word[: place + 1])]
        for mark in word:
            if _wide(lines[-1]) + cell_len(mark[0]) > cells:
                lines.append([])
            lines[-1].append(mark)
    wrapped = []
    for line in lines:
        runs = groupby(line, key=lambda mark: mark[1:])
        wrapped.append(_row([("".join(c for c, _, _ in same), *style) for style, same in runs]))
    return wrapped if len(wrapped) <= MOST_LINES else [*wrapped[: MOST_LINES - 1], [_Run(0, "…", None, DIM)]]


def _words(marks: Iterable[_Mark]) -> Iterator[list[_Mark]]:
    """Words with the spaces, or the line's end, before them."""
    word: list[_Mark] = []
    for mark in marks:
        if word and (mark[0] == "\n" or (mark[0] == " " and word[-1][0] != " ")):
            yield word
            word = []
        word.append(mark)
    if word:
        yield word


def _wide(marks: Iterable[_Mark]) -> int:
    return sum(cell_len(c) for c, _, _ in marks)


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else text[: cells - 1] + "…"


def _write(axes: Any, left: float, middle: float, line: Sequence[_Run], **style: Any) -> None:
    """One line of text, its grounds beneath it."""
    from matplotlib.patches import Rectangle

    for run in line:
        x, wide = left + run.column * _CELL, cell_len(run.text) * _CELL
        if run.ground is not None:
            axes.add_patch(Rectangle((x, middle - 0.46 * _LINE), wide, 0.86 * _LINE, facecolor=run.ground, linewidth=0))
        text = run.text.strip()
        x += (cell_len(run.text) - cell_len(run.text.lstrip())) * _CELL
        axes.text(
            x,
            middle,
            escape.figure(text),
            color=run.ink,
            fontsize=_SIZE,
            family="monospace",
            va="center_baseline",
            **style,
        )
