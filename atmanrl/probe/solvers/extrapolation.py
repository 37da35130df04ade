"""Gradients sampled along AdamW's path, and their extrapolation to the steps at which none is taken.

The gradient of a cross-entropy in the mask is g = -s G. Its size s, the mean of 1 - p over the answer's tokens, falls by
orders of magnitude; the direction G, the gradient of the tokens' log-odds, changes little. So a sample holds the two
apart, and each is extrapolated where it is nearly linear: G itself, and s by the log-odds from which it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atmanrl.probe.objective import Evaluation
from atmanrl.probe.ragged import Ragged

SMALLEST_SIZE = 1e-6
"""Below it, 1 - p is rounding noise in float32."""


@dataclass
class GradientSample:
    """The gradients of K targets, each at one step of its path, as direction and log-odds.

    Attributes:
        direction: G, `[P]`, ragged.
        odds: log-odds log p/(1-p) of each answer token, `[K, N]`, infinite on padding.
        lengths: number of answer tokens, `[K]`.
        step: the AdamW step at which each was taken, `[K]`.

    Example:
        Of one target with a mask of three values and an answer of one token, after 12 steps: `GradientSample(
        direction=tensor([0.21, -0.03, 0.11]), odds=tensor([[-1.4]]), lengths=tensor([1]), step=tensor([12]))`
    """

    direction: Tensor
    odds: Tensor
    lengths: Tensor
    step: Tensor

    @classmethod
    def of(cls, evaluation: Evaluation, lengths: Tensor, step: Tensor, ragged: Ragged) -> GradientSample:
        """Divide an evaluation's gradients by their sizes: G = g / -s."""
        logprobs = evaluation.logprobs.clamp(max=-SMALLEST_SIZE)
        odds = logprobs - torch.log(-torch.expm1(logprobs))
        valid = torch.arange(odds.shape[1], device=odds.device)[None] < lengths[:, None]
        odds = odds.masked_fill(~valid, float("inf"))
        return cls(evaluation.gradient / ragged.spread(-_size(odds, lengths)), odds, lengths, step)

    def take(self, indices: Tensor, positions: Tensor) -> GradientSample:
        """Return a copy of some targets, whose values stand at `positions`."""
        return GradientSample(self.direction[positions], self.odds[indices], self.lengths[indices], self.step[indices])

    def put(self, indices: Tensor, positions: Tensor, other: GradientSample) -> None:
        """Write some targets back."""
        self.direction[positions], self.odds[indices], self.step[indices] = other.direction, other.odds, other.step


class TurnPredictor:
    """Predicts how far each target's direction goes on turning as it did.

    A turn is part drift, which goes on, and part noise, which does not. The share that goes on is estimated by the
    regression of the last turn on the one before, both taken per step.

    Args:
        values: `[P]` of all targets, of whose shape and dtype turns are.
    """

    def __init__(self, values: Tensor) -> None:
        self.turn = torch.zeros_like(values)

    def damp(
        self, last: GradientSample, new: GradientSample, positions: Tensor, ragged: Ragged, back: Tensor
    ) -> GradientSample:
        """Return `last` with its direction moved towards `new`'s, so that as much of the turn is left as will go on.

        Args:
            last: the sample before, of K targets.
            new: the sample after, of the same.
            positions: where their values stand among those of all targets.
            ragged: the layout of their values.
            back: `[K]` true for targets that go back and walk between the two samples: there gradients are interpolated,
                so the whole turn is left, and nothing is learned from it.
        """
        turn = (new.direction - last.direction) / ragged.spread((new.step - last.step).to(new.direction.dtype))
        before = self.turn[positions]
        power = ragged.sums(before * before)
        share = (ragged.sums(before * turn) / power).clamp(0, 1)
        share[back | (power == 0)] = 1
        keeps = ragged.spread(back.to(turn.dtype)) > 0
        self.turn[positions] = torch.where(keeps, before, turn)
        return replace(last, direction=torch.lerp(new.direction, last.direction, ragged.spread(share)))


def extrapolate(last: GradientSample, new: GradientSample, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Extrapolate the gradients of K targets to `steps [T, K]`, linearly in direction and in log-odds.

    A gradient is `-s (G + a turn)`, with G the direction at `new` and `turn` the difference of the two directions. Beyond
    `new` that is a prediction, between the samples an interpolation; where both are the same sample it is constant.

    Returns:
        s `[T, K]`, and a `[T, K]`: how far beyond `new`, in units of the samples' distance; both float64.
    """
    ahead = (steps - new.step).double() / (new.step - last.step).clamp(min=1)
    # padding is infinite in both, and their difference NaN
    change = torch.nan_to_num(new.odds - last.odds, nan=0.0).double()
    return _size(new.odds.double() + change * ahead[..., None], new.lengths), ahead


def _size(odds: Tensor, lengths: Tensor) -> Tensor:
    """Return s, the mean of 1 - p over the answer's tokens, from their log-odds; infinite padding adds nothing."""
    return ((-odds).sigmoid().sum(-1) / lengths).clamp(min=SMALLEST_SIZE)
