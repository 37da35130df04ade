"""How well the rewards of one probe agree with a reference's, in what training sees of them: advantages within groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch


@dataclass(frozen=True)
class Agreement:
    """Agreement over some rollouts, held as sums, so that several checks can be added up.

    Advantages are rewards minus their group's mean. A correlation says nothing of their scale, which matters where
    advantages are not normalized, so the slope of the regression is reported beside it.

    Attributes:
        rollouts: number of distinct pairs of rewards; a rollout that repeats another adds no information.
        groups: number of groups that they come from.
        xx: sum of squares of the reference's advantages; yy: of the probe's; xy: of their products.
        largest: largest difference between the two rewards of a rollout.

    Example:
        >>> Agreement.of([0.1, 0.3, 0.2], [0.1, 0.4, 0.2], ["a", "a", "a"]).slope
        1.5
    """

    rollouts: int = 0
    groups: int = 0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, reference: Sequence[float], rewards: Sequence[float], groups: Sequence[Hashable]) -> Agreement:
        """Compare the rewards that two probes gave the same rollouts.

        Args:
            reference: rewards by the reference.
            rewards: rewards by the probe in question. A rollout with a NaN in either is left out.
            groups: the group of each rollout. A group of one has no advantages, and is left out.
        """
        members: dict[Hashable, list[tuple[float, float]]] = {}
        for expected, reward, group in zip(reference, rewards, groups, strict=True):
            if not (math.isnan(expected) or math.isnan(reward)):
                members.setdefault(group, []).append((expected, reward))
        total = cls()
        for pairs in members.values():
            if len(pairs) > 1:
                both = torch.tensor(pairs, dtype=torch.float64)
                largest = float((both[:, 0] - both[:, 1]).abs().max())
                x, y = (both - both.mean(0)).unbind(1)
                total += cls(len(set(pairs)), 1, float(x @ x), float(y @ y), float(x @ y), largest)
        return total

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.rollouts + other.rollouts, self.groups + other.groups, self.xx + other.xx, self.yy + other.yy,
            self.xy + other.xy, max(self.largest, other.largest),
        )  # fmt: skip

    @property
    def pearson(self) -> float:
        """Correlation of the advantages; NaN where one of the probes gives a group the same reward throughout."""
        scale = math.sqrt(self.xx * self.yy)
        return min(1.0, self.xy / scale) if scale > 0 else math.nan

    @property
    def slope(self) -> float:
        """Slope of the regression of the probe's advantages on the reference's; NaN where the latter are all 0."""
        return self.xy / self.xx if self.xx > 0 else math.nan

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Return a one-sided lower bound of the correlation, by Fisher's transformation.

        Each group's mean is estimated from its rollouts and takes a degree of freedom. Advantages are not normally
        distributed, so the confidence is approximate.

        Args:
            confidence: the probability that the true correlation is above the bound.

        Returns:
            The bound, or NaN where there are too few rollouts for one: at least three more than groups are needed.
        """
        return self._bound(-NormalDist().inv_cdf(confidence))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return a two-sided interval of the correlation; NaN for both ends where `lower_bound` has none."""
        quantile = NormalDist().inv_cdf((1 + confidence) / 2)
        return self._bound(-quantile), self._bound(quantile)

    def _bound(self, quantile: float) -> float:
        degrees = self.rollouts - self.groups - 2
        if degrees < 1 or math.isnan(self.pearson):
            return math.nan
        z = math.atanh(max(min(self.pearson, 1 - 1e-12), 1e-12 - 1))
        return math.tanh(z + quantile / math.sqrt(degrees))
