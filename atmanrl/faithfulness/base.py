"""`RolloutMeasure`: a metric whose value is a mean of values of single rollouts, which can be had one by one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout, RolloutBatch

Answer = Literal["own", "gold"]
"""Whose answer is asked about: the one that the policy gave, or the right one."""


class RolloutMeasure(RolloutMetric):
    """Measures each rollout by itself; its values are means over the rollouts for which they are defined.

    The values of single rollouts, which `measure` gives, are what intervals over problems are made of.

    Args:
        stages: when it runs; see `RolloutMetric`.

    Attributes:
        keys: the names of its values.
    """

    keys: tuple[str, ...]
    total: Tensor
    count: Tensor

    def __init__(self, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        # float32, not 64: Apple's MPS has no float64
        self.add_state("total", default=torch.zeros(len(self.keys)), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(len(self.keys), dtype=torch.long), dist_reduce_fx="sum")

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

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Measure a batch."""
        measured = self.measure(batch.rollouts, policy)
        numbers = torch.tensor([measured[key] for key in self.keys], dtype=torch.float64)
        self.total += numbers.nansum(dim=1).to(self.total)
        self.count += (~numbers.isnan()).sum(dim=1).to(self.count)

    def compute(self) -> dict[str, Tensor]:
        """The mean over the rollouts for which a value is defined; NaN where it is for none."""
        return dict(zip(self.keys, (self.total / self.count).unbind(), strict=True))
