"""Learning-rate schedules, counted in updates."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from atmanrl.errors import UserError

WarmupShape = Literal["constant", "linear", "cosine"]


class WarmupSchedule(LambdaLR):
    """A linear rise of the learning rate, then constant, a linear fall, or half a cosine.

    The values are those of `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
    `get_cosine_schedule_with_warmup` in transformers, with updates in the place of steps.

    Args:
        optimizer: whose learning rates are scaled.
        shape: `constant`, `linear` or `cosine`.
        warmup_updates: updates of the rise; the first has a learning rate of 0, as in transformers.
        total_updates: where the fall ends; None takes the run's number of updates.
        min_ratio: share of the peak at which a fall ends.

    Raises:
        UserError: an option that cannot be.
    """

    OPTIONS = ("shape", "warmup_updates", "total_updates", "min_ratio")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        shape: WarmupShape = "constant",
        warmup_updates: int = 0,
        total_updates: int | None = None,
        min_ratio: float = 0.0,
    ) -> None:
        if shape not in ("constant", "linear", "cosine"):
            raise UserError(f"model.lr_scheduler.shape {shape!r} is unknown; choose constant, linear or cosine.")
        if warmup_updates < 0 or not 0 <= min_ratio <= 1:
            raise UserError("model.lr_scheduler: give warmup_updates >= 0 and min_ratio between 0 and 1.")
        if total_updates is not None and total_updates <= warmup_updates:
            raise UserError("model.lr_scheduler.total_updates must be more than warmup_updates.")
        self.shape, self.warmup_updates, self.total_updates = shape, warmup_updates, total_updates
        self.min_ratio = min_ratio
        super().__init__(optimizer, self.ratio)

    def state_dict(self) -> dict[str, Any]:
        """Return how far it has come; a run that goes on takes the options from its config, as it takes all others."""
        return {k: v for k, v in super().state_dict().items() if k not in self.OPTIONS}

    def ratio(self, update: int) -> float:
        """Return the share of the peak learning rate after `update` updates."""
        if update < self.warmup_updates:
            return update / self.warmup_updates
        if self.shape == "constant" or self.total_updates is None:
            return 1.0
        done = min(1.0, (update - self.warmup_updates) / max(1, self.total_updates - self.warmup_updates))
        left = 1 - done if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.min_ratio + (1 - self.min_ratio) * left
