"""The plugin point `Solver`: how the mask is optimized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.calibration import Calibration
from atmanrl.probe.objective import Objective
from atmanrl.probe.ragged import Ragged


@dataclass
class Solution:
    """Optimized masks of B targets.

    Attributes:
        values: of H, `[P]`, ragged (see `mask.Entries`).
        loss_initial: `[B]` before the first step.
        gradients: `[B]` how many gradients were taken for each target.
        below_epsilon: share of trainable gradient entries, over all gradients, smaller than Adam's epsilon.
        losses: B lists of (step, loss) in order, one for each gradient on the target's path.

    Example:
        Of one target with a mask of three values, after two steps: `Solution(values=tensor([-0.398, -0.401, -0.4]),
        loss_initial=tensor([1.2]), gradients=tensor([2]), below_epsilon=0.33, losses=[[(0, 1.2), (1, 1.1)]])`
    """

    values: Tensor
    loss_initial: Tensor
    gradients: Tensor
    below_epsilon: float
    losses: list[list[tuple[int, float]]]


class Solver(ABC):
    """Minimizes the loss of every target in its own mask, by AdamW or along AdamW's path.

    Attributes:
        calibration: adjusts the solver's `tolerance` by comparison with the reference while a policy is trained; None
            for a solver without one, or with a fixed one.
        tolerance: of solvers that have one.
        mask_copies: tensors of the masks' size that are held at once: here values, gradient, two moments and a gradient
            that is being accumulated.

    Args:
        steps: AdamW steps (the paper: 200).
        lr: learning rate.
        betas: AdamW's betas.
        weight_decay: AdamW's decoupled weight decay.
        eps: AdamW's epsilon.
        sparsity: weight of a penalty on what is restored: the loss is Eq. 2 plus `sparsity * (1 - mean(min(H, 0)/c))`.
            The paper has none (0). Rewards with a penalty cannot be compared with rewards without.

    Raises:
        UserError: an option is out of its range.
    """

    calibration: Calibration | None = None
    tolerance: float
    mask_copies: ClassVar[int] = 5

    def __init__(
        self,
        steps: int = 200,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.6, 0.9999),
        weight_decay: float = 0.05,
        eps: float = 1e-8,
        sparsity: float = 0.0,
    ) -> None:
        if steps < 1:
            raise UserError(f"steps is {steps} (in YAML, probe.solver.steps); give at least 1.")
        if lr <= 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise UserError(
                "lr and eps must be above 0, weight_decay at least 0, and betas in [0, 1) (in YAML, of probe.solver)."
            )
        self.steps, self.lr, self.weight_decay, self.eps = steps, lr, weight_decay, eps
        if sparsity < 0:
            raise UserError(f"sparsity is {sparsity} (in YAML, probe.solver.sparsity); give 0 or more.")
        self.betas, self.sparsity = (betas[0], betas[1]), sparsity

    @abstractmethod
    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks of all targets.

        Args:
            objective: the loss, of B targets.
            init_value: c < 0, the value of every entry at the start.

        Raises:
            ProbeError: the model ignores the bias, or its logits are not finite.
        """

    def expected_gradients(self) -> float:
        """Return how many gradients a rollout is likely to take, for `atmanrl plan`; here, one a step."""
        return float(self.steps)

    def initial(self, objective: Objective, init_value: float) -> Tensor:
        """Return the values of H at the start, `[P]`: float32, or float64 for a float64 model."""
        return objective.filled(init_value)

    def penalty(self, values: Tensor, ragged: Ragged, init_value: float) -> Tensor:
        """Return the sparsity penalty's gradient `[P]` in the values `[P]`: 0 above 0, where H is restored already."""
        return ragged.spread(self.price(ragged, init_value, values.dtype)) * (values < 0)

    def price(self, ragged: Ragged, init_value: float, dtype: torch.dtype) -> Tensor:
        """Return what `penalty` is in each value below 0 of a mask, a number for each of K masks, `[K]`."""
        return -self.sparsity / (init_value * ragged.counts.to(dtype))


class Tiny:
    """Counts gradient entries smaller than Adam's epsilon, which distorts the steps that they make."""

    def __init__(self, eps: float) -> None:
        self.eps, self.tiny, self.all = eps, 0, 0

    def count(self, gradient: Tensor) -> None:
        """Count the entries of one gradient."""
        self.tiny += int((gradient.abs() < self.eps).sum())
        self.all += gradient.numel()

    @property
    def share(self) -> float:
        """The share of such entries so far, 0 before the first gradient."""
        return self.tiny / max(1, self.all)
