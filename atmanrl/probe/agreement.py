"""How well one probe's rewards agree with a reference's, by what training sees of them: advantages within groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch


@dataclass(frozen=True)
class Agreement:
    """Agreement over some rollouts, as sums, so that several checks can be added up.

    Advantages are rewards minus their group's mean. A correlation ignores scale and unscaled advantages do not, so the
    slope of the regression stands beside it.

    Attributes:
        rollouts: how many distinct pairs of rewards there are; a policy that repeats itself tells nothing new.
        groups: how many groups they come from.
        xx: sum of squares of the reference's advantages; yy: of the probe's; xy: of their products.
        largest: largest difference between two rewards of one rollout.

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
        """Compare two probes' rewards of the same rollouts.

        Args:
            reference: rewards by the reference; NaN where it abstained, and the rollout has no say.
            rewards: by the probe in question.
            groups: which group each rollout belongs to. A group of one has no advantage and no say.
        """
        members: dict[Hashable, list[tuple[float, float]]] = {}
        for theirs, ours, group in zip(reference, rewards, groups, strict=True):
            if not (math.isnan(theirs) or math.isnan(ours)):
                members.setdefault(group, []).append((theirs, ours))
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
        """One-sided lower bound of the correlation, by Fisher's transformation.

        Each group's mean is estimated from its rollouts and takes a degree of freedom. Advantages are not normally
        distributed, so the confidence is approximate.

        Args:
            confidence: that the true correlation is above the bound.

        Returns:
            The bound, or NaN where there are too few rollouts for one (at least three more than groups are needed).
        """
        degrees = self.rollouts - self.groups - 2
        if degrees < 1 or math.isnan(self.pearson):
            return math.nan
        z = math.atanh(min(self.pearson, 1 - 1e-12))
        return math.tanh(z - NormalDist().inv_cdf(confidence) / math.sqrt(degrees))
