"""Gradients taken along a path, and the line through two of them by which those between and ahead are guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atmanrl.probe.objective import Evaluation
from atmanrl.probe.packing import Packing

SMALLEST_SHARE = 1e-6
"""Below this 1 - p is rounding noise in float32."""


@dataclass
class Knot:
    """The gradients of K rollouts in parts, each at one step of its path.

    Attributes:
        direction: G, `[P]`, packed.
        odds: z of each answer token, `[K, N]`, infinite on padding.
        lengths: number of answer tokens, `[K]`.
        step: where on the path, `[K]`.
    """

    direction: Tensor
    odds: Tensor
    lengths: Tensor
    step: Tensor

    def take(self, rows: Tensor, index: Tensor) -> Knot:
        """A copy of some rollouts, whose values stand at `index`."""
        return Knot(self.direction[index], self.odds[rows], self.lengths[rows], self.step[rows])

    def put(self, rows: Tensor, index: Tensor, other: Knot) -> None:
        """Write some rollouts back."""
        self.direction[index], self.odds[rows], self.step[rows] = other.direction, other.odds, other.step


class Trend:
    """How far each rollout's direction will go on turning as it did.

    A turn is part drift, which goes on, and part noise, which does not. The share that goes on is taken from the last two
    turns: the regression of the one on the other, both by step.

    Args:
        values: `[P]` of all rollouts, for their kind.
    """

    def __init__(self, values: Tensor) -> None:
        self.turn = torch.zeros_like(values)

    def line(self, last: Knot, new: Knot, index: Tensor, packing: Packing, back: Tensor) -> Knot:
        """`last` with another direction, from which the line through `new` turns as much as will go on.

        Args:
            last: of K rollouts, whose values stand at `index`, packed by `packing`.
            new: of the same.
            index: positions of their values.
            packing: of their values.
            back: `[K]` true for rollouts that walk between the two knots: they keep their line, and nothing is learned.
        """
        turn = (new.direction - last.direction) / packing.spread((new.step - last.step).to(new.direction.dtype))
        before = self.turn[index]
        power = packing.sums(before * before)
        share = (packing.sums(before * turn) / power).clamp(0, 1)
        share[back | (power == 0)] = 1
        kept = packing.spread(back.to(turn.dtype)) > 0
        self.turn[index] = torch.where(kept, before, turn)
        return replace(last, direction=torch.lerp(new.direction, last.direction, packing.spread(share)))


def knot(evaluation: Evaluation, lengths: Tensor, step: Tensor, packing: Packing) -> Knot:
    """The gradient of each rollout in parts: g = -s G, with s the mean of 1 - p over its answer tokens."""
    assert evaluation.gradient is not None
    logprobs = evaluation.logprobs.clamp(max=-SMALLEST_SHARE)
    odds = logprobs - torch.log(-torch.expm1(logprobs))
    valid = torch.arange(odds.shape[1], device=odds.device)[None] < lengths[:, None]
    odds = odds.masked_fill(~valid, float("inf"))
    return Knot(evaluation.gradient / packing.spread(-_share(odds, lengths)), odds, lengths, step)


def line(last: Knot, new: Knot, step: Tensor) -> tuple[Tensor, Tensor]:
    """Where the gradient is at steps `[T, K]`, on the line through two knots in direction and in log-odds.

    It is `-s (G + a turn)`, with G the direction at `new` and `turn` the difference of the two directions. Beyond `new` that
    is a prediction, between the knots an interpolation; with one knot alone it is constant.

    Returns:
        s `[T, K]`, and a `[T, K]`: how far beyond `new`, in units of the knots' distance; in float64.
    """
    ahead = (step - new.step).double() / (new.step - last.step).clamp(min=1)
    turn = torch.nan_to_num(new.odds - last.odds, nan=0.0).double()
    return _share(new.odds.double() + turn * ahead[..., None], new.lengths), ahead


def _share(odds: Tensor, lengths: Tensor) -> Tensor:
    """The mean s of 1 - p over answer tokens, from their log-odds; padding stands at infinity and adds nothing."""
    return ((-odds).sigmoid().sum(-1) / lengths).clamp(min=SMALLEST_SHARE)
