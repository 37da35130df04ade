"""A diagnosis of the optimized mask: AdamW's first step alone."""

from __future__ import annotations

import torch

from atmanrl.probe.attributions import Attribution, Attributions
from atmanrl.probe.attributions.base import column_sums
from atmanrl.probe.objective import Objective


class GradientSigns(Attribution):
    """The mean sign of -dL/dH down a token's column, at H = c, from -1 to 1.

    It is where AdamW goes first: its step divides each entry's gradient by that entry's own size, so that all entries
    move equally far, and only which way they move is left of the gradient. `reward` is the mean over tokens, and has
    no unit here.
    """

    def attribute(self, objective: Objective, init_value: float) -> Attributions:
        """Take the gradient's signs; see `Attribution.attribute`."""
        start = objective.evaluate(objective.filled(init_value))
        signs = column_sums(objective.entries, -start.gradient.sign())
        counts = column_sums(objective.entries, torch.ones_like(start.gradient))
        tokens = [total / count for total, count in zip(signs, counts, strict=True)]
        return Attributions(
            tokens=tokens,
            reward=torch.stack([token.mean() for token in tokens]),
            loss_initial=start.loss,
            loss_final=objective.loss(objective.filled(0.0)),
            gradients=torch.ones_like(objective.indices),
            evaluations=torch.full_like(objective.indices, 2),
        )
