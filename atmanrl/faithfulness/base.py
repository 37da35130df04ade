"""`RolloutMeasure`: a metric whose value is a mean of values of single rollouts, which can be had one by one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from atmanrl.metrics.ratio import RatioMetric
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout, RolloutBatch

Answer = Literal["own", "gold"]
"""Whose answer is asked about: the one that the policy gave, or the right one."""


class RolloutMeasure(RatioMetric):
    """Measures each rollout by itself; its values are means over the rollouts for which they are defined.

    The values of single rollouts, which `measure` returns, are what intervals over problems are drawn from.

    Args:
        stages: when it runs; see `RolloutMetric`.

    Attributes:
        keys: the names of its values.
    """

    keys: tuple[str, ...] = ()

    @abstractmethod
    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Whether the measure is defined for a rollout at all."""

    @abstractmethod
    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Sequence[float] | Tensor]:
        """Measure rollouts that `can_measure` accepts.

        Args:
            rollouts: B of them, at least one.
            policy: the model where `uses_policy`, else None.

        Returns:
            `[B]` numbers for each of `keys`; NaN where one is not defined.
        """

    def measure(self, rollouts: Sequence[Rollout], policy: Policy | None = None) -> dict[str, list[float]]:
        """Return one number for each rollout under each of `keys`, NaN where it is not defined."""
        measured = {key: [math.nan] * len(rollouts) for key in self.keys}
        places = [i for i, rollout in enumerate(rollouts) if self.can_measure(rollout, policy)]
        if places:
            for key, values in self.values([rollouts[i] for i in places], policy).items():
                numbers = values.tolist() if isinstance(values, Tensor) else values
                for i, value in zip(places, numbers, strict=True):
                    measured[key][i] = float(value)
        return measured

    def contributions(self, batch: RolloutBatch, policy: Policy | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each rollout's numbers; a rollout for which one is not defined adds nothing to it."""
        measured = self.measure(batch.rollouts, policy)
        numbers = {key: torch.tensor(values, dtype=torch.float64) for key, values in measured.items()}
        return {key: (values.where(~values.isnan(), 0.0), ~values.isnan()) for key, values in numbers.items()}
