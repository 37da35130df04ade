"""A group's advantages, and the groups that have any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Scaling = Literal["none", "group", "batch"]
ZeroSpread = Literal["keep", "drop"]
EPSILON = 1e-4
"""Keeps a group of equal rewards from dividing by zero (TRL's value)."""


@dataclass(frozen=True)
class GroupAdvantages:
    """Turns an update's rewards into advantages and the groups to learn from; the options are those of `GRPOModule`.

    Attributes:
        scaling: see `group_advantages`.
        floor: see `group_advantages`.
        zero_spread: see `learning_groups`.

    Example:
        `GroupAdvantages("group", floor=0.05)(tensor([0., -1., 0., 0.]), 2)` is `(tensor([0.7070, -0.7070, 0., 0.]), [0, 1])`
    """

    scaling: Scaling = "none"
    floor: float = 0.0
    zero_spread: ZeroSpread = "keep"

    def __call__(self, rewards: Tensor, group_size: int) -> tuple[Tensor, list[int]]:
        """Return advantages `[N]` and numbers of groups, from total rewards `[N]` with groups standing together."""
        advantages = group_advantages(rewards, group_size, self.scaling, self.floor)
        return advantages, learning_groups(rewards, group_size, self.zero_spread)


def group_advantages(rewards: Tensor, group_size: int, scaling: Scaling = "none", floor: float = 0.0) -> Tensor:
    """Return advantages `[N]`: each reward minus its group's mean.

    Args:
        rewards: `[N]` total rewards, groups standing together.
        group_size: G.
        scaling: `none` is the paper's choice. `group` divides by the group's standard deviation: mind that a group whose
            outcomes are all equal is then driven by tiny differences of saliency, blown up to unit variance. `batch`
            divides by the standard deviation of all rewards of the update.
        floor: the least standard deviation to divide by, which bounds that hazard. 0, TRL's behaviour, is no floor.
    """
    groups = rewards.view(-1, group_size)
    centred = (groups - groups.mean(1, keepdim=True)).view(-1)
    if scaling == "group":
        return centred / (groups.std(1).clamp(min=floor).repeat_interleave(group_size) + EPSILON)
    if scaling == "batch":
        return centred / (rewards.std().clamp(min=floor) + EPSILON)
    return centred


def learning_groups(rewards: Tensor, group_size: int, zero_spread: ZeroSpread = "keep") -> list[int]:
    """Return the numbers of the groups that an update learns from.

    Args:
        rewards: `[N]` total rewards, groups standing together.
        group_size: G.
        zero_spread: what becomes of groups whose rewards are all equal, which have no advantage. `keep` counts them in
            the mean, so that their share makes a step smaller; `drop` leaves them out, and saves their passes.
    """
    groups = rewards.view(-1, group_size)
    if zero_spread == "keep":
        return list(range(len(groups)))
    return [q for q, group in enumerate(groups) if not is_flat(group)]


def is_flat(rewards: Tensor) -> bool:
    """Say whether rewards are all equal, by TRL's measure of it."""
    spread = rewards.std()
    return bool(torch.isclose(spread, torch.zeros_like(spread)))
