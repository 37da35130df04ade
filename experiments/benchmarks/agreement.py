"""How well one probe's rewards and token saliencies agree with a reference's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

GROUP = 8
"""Rollouts of a problem."""


def advantages(reward: Tensor, group: int = GROUP) -> np.ndarray:
    """Rewards minus their group's mean, which is what training sees; NaN where a rollout was not probed."""
    groups = reward.double().cpu().numpy().reshape(-1, group)
    return (groups - np.nanmean(groups, axis=1, keepdims=True)).ravel()


def pearson(reference: Tensor, reward: Tensor) -> float:
    """Correlation over advantages."""
    theirs, ours = advantages(reference), advantages(reward)
    known = ~np.isnan(theirs)
    return float(np.corrcoef(theirs[known], ours[known])[0, 1])


def slope(reference: Tensor, reward: Tensor) -> float:
    """Slope of the regression over advantages, which a correlation does not see."""
    theirs, ours = advantages(reference), advantages(reward)
    known = ~np.isnan(theirs)
    return float(np.polyfit(theirs[known], ours[known], 1)[0])


def spearman(reference: Sequence[list[float] | None], saliency: Sequence[list[float] | None]) -> float:
    """Mean rank correlation of a rollout's token saliencies."""
    ranks = [
        np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
        for a, b in zip(reference, saliency, strict=True)
        if a is not None and b is not None and len(a) > 2
    ]
    return float(np.mean(ranks))


def largest_difference(reference: Tensor, reward: Tensor) -> float:
    """The largest difference of a reward."""
    return float(np.nanmax(np.abs(reward.double().cpu().numpy() - reference.double().cpu().numpy())))
