"""The mask H: which of its entries are trainable, the bias it gives, and the reward it is read by (Eq. 3).

For a rollout of T reasoning tokens, D delimiter tokens and N answer tokens, H has R = T + D + N rows (the position that
attends) and T columns (the reasoning token attended to). Row w and column v are trainable where w >= v. The prompt's
columns, the delimiter's and the answer's own columns are not in H: nothing is added to them.

The trainable values of many rollouts stand packed in one vector (see `Packing`), row by row within a rollout. Only
forward passes lay them out as matrices (see `Entries.dense`).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.packing import Packing

Orientation = Literal["restored", "printed"]
Shape = Literal["full", "column", "cot_rows", "answer_rows"]


class Entries:
    """The trainable values of B masks.

    Args:
        rows: `[B]` number of rows R of each rollout.
        columns: `[B]` number of reasoning tokens T of each rollout.
        shape: `full` is the paper's mask. `column` has one value for a reasoning token, whichever position attends to
            it. `cot_rows` is trainable where the reasoning attends, `answer_rows` where the delimiter and the answer do;
            nothing is added in the other rows.

    Attributes:
        packing: of the values.

    Raises:
        UserError: there is no such shape.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: Shape = "full") -> None:
        if shape not in get_args(Shape):
            raise UserError(f"the mask's shape {shape!r} is unknown; choose one of {', '.join(get_args(Shape))}.")
        self.rows, self.columns, self.shape = rows, columns, shape
        triangle, below = columns * (columns + 1) // 2, columns * (rows - columns)
        count = {"full": triangle + below, "column": columns, "cot_rows": triangle, "answer_rows": below}[shape]
        self.packing = Packing(count)

    def where(self, rows: Tensor) -> Tensor:
        """Which entries of the rollouts `rows [K]` are in their masks: `[K, R, T]`, of the largest R and T among them."""
        height, width = self.rows[rows], self.columns[rows]
        w = torch.arange(int(height.max()), device=rows.device)[None, :, None]
        v = torch.arange(int(width.max()), device=rows.device)[None, None, :]
        height, width = height[:, None, None], width[:, None, None]
        found = (w >= v) & (w < height) & (v < width)
        if self.shape == "cot_rows":
            return found & (w < width)
        return found & (w >= width) if self.shape == "answer_rows" else found

    def dense(self, values: Tensor, rows: Tensor) -> Tensor:
        """The masks `[K, R, T]` of the rollouts `rows [K]` from their values `[P]`; 0 where there is no entry.

        Autograd goes through it.
        """
        where = self.where(rows)
        if self.shape == "column":
            taken = where.any(1)
            return values.new_zeros(taken.shape).masked_scatter(taken, values)[:, None] * where
        return values.new_zeros(where.shape).masked_scatter(where, values)


def effective(mask: Tensor) -> Tensor:
    """min(H, 0): the mask suppresses attention or leaves it alone, it never strengthens it."""
    return mask.clamp(max=0)


def oriented(share: Tensor, orientation: Orientation) -> Tensor:
    """The reward of a mean suppression `share` = mean(H/c).

    `restored` is 1 - mean(H/c): it grows with what had to be re-enabled to get the answer right, which is what the
    paper's text asks for. `printed` is mean(H/c), Eq. 3 to the letter: 1 where everything may stay suppressed.
    """
    return 1 - share if orientation == "restored" else share


def saliency_reward(values: Tensor, packing: Packing, init_value: float, orientation: Orientation) -> Tensor:
    """Saliency reward `[B]` (Eq. 3): the mean of min(H, 0)/c over all trainable values, oriented.

    Args:
        values: of H, `[P]`.
        packing: of the values.
        init_value: c < 0.
        orientation: see `oriented`.
    """
    return oriented(packing.means(effective(values) / init_value), orientation)


def token_saliency(mask: Tensor, where: Tensor, init_value: float, orientation: Orientation) -> Tensor:
    """Saliency of each reasoning token `[B, T]`: the mean down its column, oriented; 0 on padding.

    Args:
        mask: H, `[B, R, T]`.
        where: its entries, `[B, R, T]`.
        init_value: c < 0.
        orientation: see `oriented`.
    """
    share = (effective(mask) / init_value * where).sum(1) / where.sum(1).clamp(min=1)
    return oriented(share, orientation) * where.any(1)
