"""`RatioMetric`: values that are ratios of sums over rollouts, which is what reports draw bootstrap intervals of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Task

Contribution: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""What rollouts add to a value: terms of a mean, or a numerator and a denominator each."""


class RatioMetric(RolloutMetric):
    """A metric whose values are means over rollouts or problems, or ratios of such sums: shares of tokens, say.

    A subclass says what each rollout contributes. An evaluation stores that beside the rollout in `eval/*.jsonl`, so that
    reports draw bootstrap intervals of every such metric.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self._begin()

    @property
    def keys(self) -> Sequence[str]:
        """The keys of its values; those of `columns` unless a subclass says otherwise."""
        return tuple(self.columns)

    @abstractmethod
    def contributions(self, batch: RolloutBatch, policy: Policy | None = None) -> Mapping[str, Contribution]:
        """Return what a batch adds to each value, by key.

        Args:
            batch: judged rollouts, B of Q problems, not to be changed.
            policy: the model where `uses_policy`, else None.

        Returns:
            Tensors of shape `[B]`, or `[Q]` where samples of a problem count together, as pass@k's do: one alone for a
            mean, or numerators and denominators.
        """

    def prepare(self, task: Task | None, samples: int) -> None:
        """Start from zero, with the keys that the run decides on."""
        self._begin()

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Add a batch's contributions.

        Raises:
            UserError: a key is missing, or there is not one number for each rollout or each problem.
        """
        self.latest = self.contributions(batch, policy)
        shapes = (len(batch),), (len(batch.groups),)
        for row, key in enumerate(self.keys):
            if key not in self.latest or any(terms.shape not in shapes for terms in fraction(self.latest[key])):
                raise UserError(
                    f"{type(self).__name__}.contributions() must return {key}, with a number for each of {len(batch)} "
                    f"rollouts or {len(batch.groups)} problems."
                )
            for column, terms in enumerate(fraction(self.latest[key])):
                state = self.sums if terms.is_floating_point() else self.counts
                state[row, column] += terms.cpu().double().sum().to(state)

    def compute(self) -> dict[str, Tensor]:
        """Return the ratios of the sums; NaN where nothing was counted."""
        totals = self.counts.cpu().double() + self.sums.cpu().double()
        values = (totals[:, 0] / totals[:, 1]).float().to(self.device)
        return dict(zip(self.keys, values, strict=True))

    def _begin(self) -> None:
        # Integers are counted exactly. Other terms are summed in float32, since Apple's MPS has no float64.
        shape = len(self.keys), 2
        self.add_state("counts", default=torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", default=torch.zeros(shape), dist_reduce_fx="sum")


def fraction(contribution: Contribution) -> tuple[Tensor, Tensor]:
    """Return numerators and denominators; the denominators of a mean are ones, and true counts as 1."""
    pair = contribution if isinstance(contribution, tuple) else (contribution, torch.ones_like(contribution))
    numerators, denominators = (terms.long() if terms.dtype == torch.bool else terms for terms in pair)
    return numerators, denominators
