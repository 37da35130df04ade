"""The length reward: a soft punishment of long completions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch


class LengthReward(Reward):
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13), as TRL's `get_soft_overlong_punishment`.

    With n tokens, L = `max_completion_len` and a cache of C = `soft_punish_cache`: 0 up to L - C, then (L - C - n) / C,
    down to -1 at L and beyond.

    Args:
        max_completion_len: L, in tokens.
        soft_punish_cache: C, in tokens; 0 punishes by 0 or -1 alone.
        weight: factor in the total reward.
        of: what is counted: the whole `completion`, or its `reasoning` before the delimiter alone.
        only_where: counts only in rollouts where another reward is high enough.

    Raises:
        UserError: L below 1, or C not between 0 and L.
    """

    def __init__(
        self,
        max_completion_len: int,
        soft_punish_cache: int,
        weight: float = 1.0,
        of: Literal["completion", "reasoning"] = "completion",
        only_where: Gate | None = None,
    ) -> None:
        super().__init__(weight, only_where)
        if max_completion_len < 1 or not 0 <= soft_punish_cache <= max_completion_len:
            raise UserError(
                f"LengthReward: max_completion_len is {max_completion_len} and soft_punish_cache is {soft_punish_cache}; "
                "give at least 1 token, and a cache from 0 to that."
            )
        if of not in ("completion", "reasoning"):
            raise UserError(f"LengthReward: of is {of!r}; choose completion or reasoning.")
        self.max_completion_len, self.soft_punish_cache, self.of = max_completion_len, soft_punish_cache, of

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """From 0 to -1 for each rollout, `[B]`."""
        counts = [r.parts.cot_length if self.of == "reasoning" else len(r.completion.ids) for r in batch.rollouts]
        over = torch.tensor(counts) - (self.max_completion_len - self.soft_punish_cache)
        if self.soft_punish_cache == 0:
            return -(over > 0).float()
        return -(over / self.soft_punish_cache).clamp(0, 1)
