"""What restoring a token takes off the answer's loss, by the gradient in the mask: at one point, or along a path."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.attributions.base import Attribution, Attributions, column_sums
from atmanrl.probe.objective import Objective


class IntegratedGradients(Attribution):
    """Integrated gradients (Sundararajan et al. 2017, eq. 1) of the loss, from the suppressed mask to the lifted one.

    A token's saliency is the sum over its column's entries of c times the mean of dL/dH on the straight path from H = c
    to H = 0, which all entries walk together. It is above 0 where restoring the token lowers the loss, and the tokens'
    saliencies add up to L(c) - L(0) (completeness), so the reward is that difference over T. In another shape than
    `full` the same holds of that mask; `column` has the very saliencies of `full`.

    `loss_initial` is L(c), every entry suppressed, `loss_final` L(0), the unmodified model; `gradients` are `steps`,
    `evaluations` `steps` + 2.

    Args:
        steps: gradients along the path, at Gauss-Legendre nodes: exact for paths of a polynomial loss up to degree
            2 `steps`.

    Raises:
        UserError: `steps` is below 1.
    """

    def __init__(self, steps: int = 32) -> None:
        if steps < 1:
            raise UserError(f"steps is {steps} (in YAML, probe.attribution.steps); give at least 1.")
        self.steps = steps

    def attribute(self, objective: Objective, init_value: float) -> Attributions:
        """Integrate along the path; see `Attribution.attribute`."""
        self.check(objective.entries.shape)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        total = objective.filled(0.0)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            # the nodes stand in [-1, 1], which is mapped to [c, 0]; the weights add up to 2
            gradient = objective.evaluate(objective.filled(init_value * (1 - node) / 2)).gradient
            total.add_(gradient, alpha=weight / 2)
        loss_initial = objective.loss(objective.filled(init_value))
        return _attributions(objective, init_value, total, loss_initial, self.steps, self.steps + 2)


class GradientAtStart(Attribution):
    """First-order estimate of what restoring a token takes off the loss: c times the sum of dL/dH down its column.

    The gradient is that of the fully suppressed mask, H = c, which the paper's optimizer sees first. In another shape
    than `full` the entries are those of that mask; `column` has the very saliencies of `full`. Far from the start the
    estimate is crude: a token's saliencies do not add up to L(c) - L(0) (see `IntegratedGradients`).

    `loss_initial` is L(c), every entry suppressed, `loss_final` L(0), the unmodified model; `gradients` are 1,
    `evaluations` 2.
    """

    def attribute(self, objective: Objective, init_value: float) -> Attributions:
        """Take the gradient; see `Attribution.attribute`."""
        self.check(objective.entries.shape)
        start = objective.evaluate(objective.filled(init_value))
        return _attributions(objective, init_value, start.gradient, start.loss, 1, 2)


def _attributions(
    objective: Objective, init_value: float, gradient: Tensor, loss_initial: Tensor, gradients: int, evaluations: int
) -> Attributions:
    """Return what a gradient `[P]` in the mask's values, at a point or averaged along the path, says of each token."""
    tokens = column_sums(objective.entries, init_value * gradient)
    return Attributions(
        tokens=tokens,
        reward=torch.stack([token.mean() for token in tokens]),
        loss_initial=loss_initial,
        loss_final=objective.loss(objective.filled(0.0)),
        gradients=torch.full_like(objective.indices, gradients),
        evaluations=torch.full_like(objective.indices, evaluations),
    )
