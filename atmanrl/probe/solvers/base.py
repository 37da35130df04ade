"""The plugin point `Solver`: how the mask is optimized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.objective import Objective


@dataclass
class Solution:
    """Optimized masks.

    Attributes:
        mask: H, `[B, R, T]`.
        loss_initial: `[B]` before the first step.
        gradients: `[B]` how many gradients each rollout took.
        below_epsilon: share of trainable gradient entries, over all gradients, smaller than Adam's epsilon.
    """

    mask: Tensor
    loss_initial: Tensor
    gradients: Tensor
    below_epsilon: float


class Solver(ABC):
    """Minimizes every rollout's loss in its own mask, by AdamW or along AdamW's path.

    Args:
        steps: AdamW steps (the paper: 200).
        lr: learning rate.
        betas: AdamW's betas.
        weight_decay: AdamW's decoupled weight decay.
        eps: AdamW's epsilon.
    """

    def __init__(
        self,
        steps: int = 200,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.6, 0.9999),
        weight_decay: float = 0.05,
        eps: float = 1e-8,
    ) -> None:
        if steps < 1:
            raise UserError(f"the probe's steps are {steps}; give at least 1.")
        if lr <= 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise UserError("the probe's lr and eps must be above 0, weight_decay at least 0, and betas in [0, 1).")
        self.steps, self.lr, self.weight_decay, self.eps = steps, lr, weight_decay, eps
        self.betas = (betas[0], betas[1])

    @abstractmethod
    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize masks that start at `init_value` (c) in all trainable entries and are 0 elsewhere."""

    def initial(self, objective: Objective, init_value: float) -> Tensor:
        """H at the start: float32, or float64 for a float64 model."""
        dtype = torch.promote_types(next(objective.model.parameters()).dtype, torch.float32)
        return objective.where.to(dtype) * init_value


class Tiny:
    """Counts gradient entries that are smaller than Adam's epsilon, which then distorts the step."""

    def __init__(self, eps: float) -> None:
        self.eps, self.tiny, self.all = eps, 0, 0

    def count(self, gradient: Tensor, where: Tensor) -> None:
        """Count the entries of one gradient."""
        self.tiny += int(((gradient.abs() < self.eps) & where).sum())
        self.all += int(where.sum())

    @property
    def share(self) -> float:
        """The share so far."""
        return self.tiny / max(1, self.all)
