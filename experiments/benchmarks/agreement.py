"""How well one probe's rewards and token saliencies agree with a reference's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from atmanrl.probe.agreement import Agreement
from atmanrl.probe.reference_check import spearman as probe_spearman

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
        probe_spearman(a, b)
        for a, b in zip(reference, saliency, strict=True)
        if a is not None and b is not None and len(a) > 2
    ]
    return float(np.nanmean(ranks))


def largest_difference(reference: Tensor, reward: Tensor) -> float:
    """The largest difference of a reward."""
    return float(np.nanmax(np.abs(reward.double().cpu().numpy() - reference.double().cpu().numpy())))
