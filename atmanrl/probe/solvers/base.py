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
from atmanrl.probe.packing import Packing


@dataclass
class Solution:
    """Optimized masks.

    Attributes:
        values: of H, `[P]`, packed (see `mask.Entries`).
        loss_initial: `[B]` before the first step.
        gradients: `[B]` how many gradients each rollout took.
        below_epsilon: share of trainable gradient entries, over all gradients, smaller than Adam's epsilon.
        losses: B lists of (step, loss) in order, one for each gradient on the rollout's path.
    """

    values: Tensor
    loss_initial: Tensor
    gradients: Tensor
    below_epsilon: float
    losses: list[list[tuple[int, float]]]


class Solver(ABC):
    """Minimizes every rollout's loss in its own mask, by AdamW or along AdamW's path.

    Attributes:
        calibration: what holds the solver's `tolerance` against the reference while a policy is trained, and moves it;
            None where there is nothing to move.
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
            The paper has none (0); its spread and its scale are another reward's.
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
            raise UserError(f"the probe's steps are {steps}; give at least 1.")
        if lr <= 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise UserError("the probe's lr and eps must be above 0, weight_decay at least 0, and betas in [0, 1).")
        self.steps, self.lr, self.weight_decay, self.eps = steps, lr, weight_decay, eps
        if sparsity < 0:
            raise UserError(f"the probe's sparsity is {sparsity}; give 0 or more.")
        self.betas, self.sparsity = (betas[0], betas[1]), sparsity

    @abstractmethod
    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize masks that start at `init_value` (c)."""

    def expected_gradients(self) -> float:
        """Return how many gradients a rollout is likely to take, for `atmanrl plan`; here, one a step."""
        return float(self.steps)

    def initial(self, objective: Objective, init_value: float) -> Tensor:
        """The values of H at the start, `[P]`: float32, or float64 for a float64 model."""
        dtype = torch.promote_types(next(objective.model.parameters()).dtype, torch.float32)
        return torch.full((objective.entries.packing.total,), init_value, dtype=dtype, device=objective.device)

    def penalty(self, values: Tensor, packing: Packing, init_value: float) -> Tensor:
        """The sparsity penalty's gradient `[P]` in the values `[P]`: nothing above 0, where H is restored already."""
        return packing.spread(-self.sparsity / (init_value * packing.counts)).to(values.dtype) * (values < 0)


class Tiny:
    """Counts gradient entries that are smaller than Adam's epsilon, which then distorts the step."""

    def __init__(self, eps: float) -> None:
        self.eps, self.tiny, self.all = eps, 0, 0

    def count(self, gradient: Tensor) -> None:
        """Count the entries of one gradient."""
        self.tiny += int((gradient.abs() < self.eps).sum())
        self.all += gradient.numel()

    @property
    def share(self) -> float:
        """The share so far."""
        return self.tiny / max(1, self.all)
