"""Which groups an update learns from, and which of them make one optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

ZeroSpread = Literal["keep", "drop"]


def learning_groups(rewards: Tensor, group_size: int, zero_spread: ZeroSpread = "keep") -> list[int]:
    """The groups that an update learns from.

    Args:
        rewards: `[B]` total rewards, groups standing together.
        group_size: G.
        zero_spread: what becomes of groups whose rewards are all equal, which have no advantage. `keep` counts them in
            the mean, so that their share makes a step smaller; `drop` leaves them out, and saves their passes.
    """
    groups = rewards.view(-1, group_size)
    if zero_spread == "keep":
        return list(range(len(groups)))
    return [q for q, group in enumerate(groups) if not is_flat(group)]


def is_flat(rewards: Tensor) -> bool:
    """Whether rewards are all equal, by TRL's measure of it."""
    spread = rewards.std()
    return bool(torch.isclose(spread, torch.zeros_like(spread)))


def minibatches(groups: Sequence[int], group_size: int, queries: int, seed: int) -> list[list[int]]:
    """Rows of the rollouts of `queries` whole groups at a time, in an order drawn by the seed."""
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        [groups[k] * group_size + g for k in order[start : start + queries] for g in range(group_size)]
        for start in range(0, len(order), queries)
    ]
