"""The mask H: which of its entries are trainable, and the reward that is read off it (Eq. 3).

For a target of T reasoning tokens, D delimiter tokens and N answer tokens, H has R = T + D + N rows (the position that
attends) and T columns (the reasoning token attended to). Row w and column v are trainable where w >= v. The columns of the
prompt, the delimiter and the answer are not in H: nothing is added to them.

The trainable values of many masks are stored in one vector (see `Ragged`), row by row within a mask. Only forward passes
lay them out as matrices (see `Entries.dense`).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.ragged import Ragged

Orientation = Literal["restored", "printed"]
Shape = Literal["full", "column", "cot_rows", "answer_rows"]


def check_choice(name: str, value: object, choices: Any, key: str = "") -> None:
    """Refuse a value of an option that is none of a `Literal`'s.

    Args:
        name: of the option in Python.
        value: what was chosen.
        choices: the `Literal`.
        key: of the option in YAML, if it has one.

    Raises:
        UserError: the message names the option, the value and the choices.
    """
    if value not in get_args(choices):
        where = f" (in YAML, {key})" if key else ""
        raise UserError(f"{name} {value!r} is unknown{where}; choose one of {', '.join(get_args(choices))}.")


class Entries:
    """The trainable entries of B masks.

    Args:
        rows: `[B]` number of rows R of each mask.
        columns: `[B]` number of reasoning tokens T of each mask.
        shape: `full` is the paper's mask. `column` has one value for a reasoning token, whichever position attends to
            it. `cot_rows` is trainable where the reasoning attends, `answer_rows` where the delimiter and the answer do;
            nothing is added in the other rows.

    Attributes:
        ragged: the layout of their values.

    Raises:
        UserError: there is no such shape.

    Example:
        A reasoning of two tokens with a delimiter and an answer of one each has four rows, and 2 + 2 + 2 + 1 entries:
        `Entries(rows=torch.tensor([4]), columns=torch.tensor([2])).ragged.total == 7`
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: Shape = "full") -> None:
        check_choice("the mask's shape", shape, Shape)
        self.rows, self.columns, self.shape = rows, columns, shape
        triangle, below = columns * (columns + 1) // 2, columns * (rows - columns)
        count = {"full": triangle + below, "column": columns, "cot_rows": triangle, "answer_rows": below}[shape]
        self.ragged = Ragged(count)

    def where(self, indices: Tensor) -> Tensor:
        """Return where the masks `indices [K]` have entries: `[K, R, T]` boolean, of the largest R and T among them."""
        height, width = self.rows[indices], self.columns[indices]
        w = torch.arange(int(height.max()), device=indices.device)[None, :, None]
        v = torch.arange(int(width.max()), device=indices.device)[None, None, :]
        height, width = height[:, None, None], width[:, None, None]
        entries = (w >= v) & (w < height) & (v < width)
        if self.shape == "cot_rows":
            return entries & (w < width)
        return entries & (w >= width) if self.shape == "answer_rows" else entries

    def dense(self, values: Tensor, indices: Tensor) -> Tensor:
        """Return the masks `indices [K]` as matrices `[K, R, T]`, from their values `[P]`; 0 where there is no entry.

        Autograd goes through it.
        """
        where = self.where(indices)
        if self.shape == "column":
            columns = where.any(1)
            return values.new_zeros(columns.shape).masked_scatter(columns, values)[:, None] * where
        return values.new_zeros(where.shape).masked_scatter(where, values)


def effective(mask: Tensor) -> Tensor:
    """Return min(H, 0): the mask suppresses attention or leaves it alone, it never strengthens it."""
    return mask.clamp(max=0)


def oriented(share: Tensor, orientation: Orientation) -> Tensor:
    """Return the reward of a mean suppression `share` = mean(H/c).

    `restored` is 1 - mean(H/c): it grows with what had to be re-enabled to get the answer right, which is what the
    paper's text asks for. `printed` is mean(H/c), Eq. 3 to the letter: 1 where everything may stay suppressed.
    """
    return 1 - share if orientation == "restored" else share


def saliency_reward(values: Tensor, ragged: Ragged, init_value: float, orientation: Orientation) -> Tensor:
    """Return the saliency reward `[B]` (Eq. 3): the mean of min(H, 0)/c over all trainable values, oriented.

    Args:
        values: of H, `[P]`.
        ragged: the layout of the values.
        init_value: c < 0.
        orientation: see `oriented`.
    """
    return oriented(ragged.means(effective(values) / init_value), orientation)


def token_saliency(mask: Tensor, where: Tensor, init_value: float, orientation: Orientation) -> Tensor:
    """Return the saliency of each reasoning token `[B, T]`: the mean down its column, oriented; 0 on padding.

    Args:
        mask: H, `[B, R, T]`.
        where: its entries, `[B, R, T]`.
        init_value: c < 0.
        orientation: see `oriented`.
    """
    share = (effective(mask) / init_value * where).sum(1) / where.sum(1).clamp(min=1)
    return oriented(share, orientation) * where.any(1)
