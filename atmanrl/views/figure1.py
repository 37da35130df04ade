"""Figure 1: the probe of one rollout. The loss over the steps, the mask before and after, and each token's saliency.

It is drawn on a `matplotlib.figure.Figure` alone: no window, no global state, nothing to close. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCENT, BELOW, OUTSIDE, INK = "#c0392b", "#2e75b6", "#dfe3e6", "#2c3e50"
MOST_LABELS = 64
"""Most tokens that are labelled by their texts; more are numbered."""


def draw(
    mask: npt.ArrayLike,
    saliency: Sequence[float],
    losses: Sequence[tuple[int, float]],
    rows: Sequence[str],
    *,
    init_value: float,
    title: str = "",
) -> Figure:
    """Draw Figure 1 of one rollout.

    Args:
        mask: H after optimization, `[R, T]`, NaN where there is no entry.
        saliency: one value for each reasoning token, T of them.
        losses: (step, loss in nats a token) pairs, in order of their steps.
        rows: R labels, those of the T reasoning tokens first.
        init_value: c, the value of every entry at the start.
        title: text above the panels.

    Raises:
        UserError: matplotlib is missing, or `saliency` or `rows` do not fit `mask`.
    """
    after = np.asarray(mask, dtype=float)
    if after.ndim != 2 or after.shape != (len(rows), len(saliency)) or not losses:
        raise UserError(
            f"figure 1 needs a mask of {len(rows)} labelled rows and {len(saliency)} saliencies, and a loss; the mask "
            f"is {' x '.join(map(str, after.shape))}, there are {len(losses)} losses."
        )
    try:
        from matplotlib.figure import Figure
        from matplotlib.gridspec import GridSpec
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'atmanrl[figures]'.") from error
    labels = [_label(text) for text in rows]
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    grid = GridSpec(2, 3, figure=figure, width_ratios=(0.8, 1, 1), height_ratios=(2.1, 1))
    _losses(figure.add_subplot(grid[0, 0]), losses)
    before = np.where(np.isnan(after), np.nan, init_value)
    _heat(figure, [figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[0, 2])], before, after, labels, init_value)
    _bars(figure.add_subplot(grid[1, :]), saliency, labels[: len(saliency)])
    if title:
        figure.suptitle(escape.figure(title), fontsize=10, color=INK)
    return figure


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure in the format of the ending of `path`, and make its folder where it is missing."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _losses(axis: Any, losses: Sequence[tuple[int, float]]) -> None:
    """Draw the answer's loss over AdamW's steps, with a dot for each gradient."""
    steps, values = zip(*losses, strict=True)
    axis.plot(steps, values, color=ACCENT, marker="o", markersize=3, linewidth=1.2)
    _tidy(axis, "a", "loss of the gold answer")
    axis.set_xlabel("AdamW step", fontsize=8)
    axis.set_ylabel("nats a token", fontsize=8)
    axis.set_ylim(bottom=0)


def _heat(
    figure: Figure, axes: list[Any], before: npt.NDArray[Any], after: npt.NDArray[Any], labels: list[str], start: float
) -> None:
    """Draw both masks on one colour scale, white at c: red is re-enabled, blue suppressed further, grey no entry."""
    from matplotlib import colormaps
    from matplotlib.colors import CenteredNorm

    colours = colormaps["RdBu_r"].with_extremes(bad=OUTSIDE)
    # a few entries go much further than all others, and would leave those without colour
    away = np.nanpercentile(np.abs(after - start), 99.5) if np.isfinite(after).any() else 0.0
    norm = CenteredNorm(start, halfrange=max(float(away), 1e-6))
    columns = before.shape[1]
    image: Any = None
    for letter, axis, values, when in zip("bc", axes, (before, after), ("before", "after"), strict=True):
        image = axis.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
        _tidy(axis, letter, f"mask H {when}")
        for edge in ("top", "right"):
            axis.spines[edge].set_visible(True)
        # beneath this line the delimiter and the answer attend
        axis.axhline(columns - 0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axis.set_xlabel("reasoning token attended to", fontsize=8)
        _ticks(axis.xaxis, labels[:columns], rotation=90)
        _ticks(axis.yaxis, labels if letter == "b" else [""] * len(labels))
    axes[0].set_ylabel("token that attends", fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, aspect=30, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.set_label("H: suppressed further (blue), re-enabled (red)", fontsize=8)


def _bars(axis: Any, saliency: Sequence[float], labels: list[str]) -> None:
    """Draw each reasoning token's saliency."""
    axis.bar(range(len(saliency)), saliency, color=[ACCENT if value >= 0 else BELOW for value in saliency], width=0.8)
    axis.axhline(0, color=INK, linewidth=0.6)
    axis.margins(x=0.005)
    axis.set_ylabel("mean down the column", fontsize=8)
    _tidy(axis, "d", "saliency of each reasoning token")
    _ticks(axis.xaxis, labels, rotation=90, size=7)


def _ticks(axis: Any, labels: list[str], rotation: float = 0, size: float | None = None) -> None:
    """Label an axis with token texts where they are few enough to be read, else with numbers."""
    if len(labels) > MOST_LABELS:
        axis.set_tick_params(labelsize=7)
        return
    axis.set_ticks(range(len(labels)), labels, rotation=rotation, fontsize=size or (5 if len(labels) > 36 else 6))
    axis.set_tick_params(length=0, pad=2)


def _tidy(axis: Any, letter: str, title: str) -> None:
    axis.set_title(title, fontsize=9, color=INK)
    axis.set_title(letter, fontsize=10, fontweight="bold", loc="left")
    axis.tick_params(labelsize=7)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)


def _label(text: str) -> str:
    """Return a token as a label: white space is made visible, and a long one cut."""
    shown = text.strip().replace("\n", "⏎") if text.strip() else text.replace("\n", "⏎").replace(" ", "␣")
    return escape.figure(shown if len(shown) <= 12 else shown[:11] + "…")
