"""The mask H: which of its entries are trainable, the bias it gives, and the reward it is read by (Eq. 3).

For a rollout of T reasoning tokens, D delimiter tokens and N answer tokens, H has R = T + D + N rows (the position that
attends) and T columns (the reasoning token attended to). Row w and column v are trainable where w >= v. The prompt's
columns, the delimiter's and the answer's own columns are not in H: nothing is added to them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Orientation = Literal["restored", "printed"]


def trainable(rows: Tensor, columns: Tensor) -> Tensor:
    """Which entries are trainable.

    Args:
        rows: `[B]` number of rows R of each rollout.
        columns: `[B]` number of reasoning tokens T of each rollout.

    Returns:
        `[B, max R, max T]` boolean: w >= v, w < R and v < T.
    """
    w = torch.arange(int(rows.max()), device=rows.device)[None, :, None]
    v = torch.arange(int(columns.max()), device=rows.device)[None, None, :]
    return (w >= v) & (w < rows[:, None, None]) & (v < columns[:, None, None])


def effective(mask: Tensor) -> Tensor:
    """min(H, 0): the mask suppresses attention or leaves it alone, it never strengthens it."""
    return mask.clamp(max=0)


def oriented(share: Tensor, orientation: Orientation) -> Tensor:
    """The reward of a mean suppression `share` = mean(H/c).

    `restored` is 1 - mean(H/c): it grows with what had to be re-enabled to get the answer right, which is what the
    paper's text asks for. `printed` is mean(H/c), Eq. 3 to the letter: 1 where everything may stay suppressed.
    """
    return 1 - share if orientation == "restored" else share


def saliency_reward(mask: Tensor, where: Tensor, init_value: float, orientation: Orientation) -> Tensor:
    """Saliency reward `[B]` (Eq. 3): the mean of min(H, 0)/c over all trainable entries, oriented.

    Args:
        mask: H, `[B, R, T]`.
        where: its trainable entries, `[B, R, T]`.
        init_value: c < 0.
        orientation: see `oriented`.
    """
    share = (effective(mask) / init_value * where).sum((1, 2)) / where.sum((1, 2))
    return oriented(share, orientation)


def token_saliency(mask: Tensor, where: Tensor, init_value: float, orientation: Orientation) -> Tensor:
    """Saliency of each reasoning token `[B, T]`: the mean down its column, oriented; 0 on padding."""
    share = (effective(mask) / init_value * where).sum(1) / where.sum(1).clamp(min=1)
    return oriented(share, orientation) * where.any(1)
