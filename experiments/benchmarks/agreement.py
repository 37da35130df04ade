"""How well one probe's rewards and token saliencies agree with a reference's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from atmanrl.probe.agreement import Agreement

GROUP = 8
"""Rollouts of a problem."""


def _agreement(reference: Tensor, reward: Tensor) -> Agreement:
    """Agreement over advantages, which is what training sees; a rollout that was not probed (NaN) has no say."""
    theirs, ours = (rewards.double().cpu().tolist() for rewards in (reference, reward))
    return Agreement.of(theirs, ours, [place // GROUP for place in range(len(theirs))])


def pearson(reference: Tensor, reward: Tensor) -> float:
    """Correlation over advantages."""
    return _agreement(reference, reward).pearson


def slope(reference: Tensor, reward: Tensor) -> float:
    """Slope of the regression over advantages, which a correlation does not see."""
    return _agreement(reference, reward).slope


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
