"""Length rewards: a price on each token, a group's lengths against each other, and a soft punishment of the longest."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch

Counted = Literal["completion", "reasoning"]
"""What is counted: a whole completion, or the tokens before its delimiter (all of them where there is none)."""


class TokenPriceReward(Reward):
    """A price on each token: -price * n, with n tokens of the completion or of its reasoning.

    The plainest pressure towards brevity, the same for right and wrong rollouts: only differences within a group teach,
    so `price` says how many tokens a right answer may cost, 1 / price beside an outcome of 0 or -1.

    Args:
        price: of one token, in units of reward.
        weight: factor in the total reward.
        of: what is counted.
        only_where: counts only in rollouts where another reward is high enough; see `Gate` on penalties behind gates.

    Raises:
        UserError: a price that is not above 0.
    """

    def __init__(
        self, price: float = 0.01, weight: float = 1.0, of: Counted = "completion", only_where: Gate | None = None
    ) -> None:
        super().__init__(weight, only_where)
        if not 0 < price < math.inf:
            raise UserError(f"TokenPriceReward: price is {price}; give a number above 0, such as 0.01.")
        self.price, self.of = price, _known(of, self)

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """What each rollout costs, `[B]`, 0 or less."""
        return -self.price * lengths(batch, self.of)


class RelativeLengthReward(Reward):
    """The length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3): shorter than the rest of the group, or longer.

    Let l = 0.5 - (n - shortest) / (longest - shortest), over all rollouts of a group: from 0.5 for the shortest to -0.5
    for the longest. A right rollout gets l, a wrong one min(0, l), and all get 0 where the lengths are equal.

    It compares the rollouts of a group, so it cannot stand behind a gate, which takes groups apart.

    Args:
        weight: factor in the total reward.
        of: what is counted.
    """

    def __init__(self, weight: float = 1.0, of: Counted = "completion") -> None:
        super().__init__(weight)
        self.of = _known(of, self)

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """From 0.5 to -0.5 for each rollout, `[B]`."""
        groups = lengths(batch, self.of).view(-1, batch.group_size)
        shortest, longest = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        relative = 0.5 - (groups - shortest) / (longest - shortest)
        relative = torch.where(longest > shortest, relative, 0.0).view(-1)
        correct = torch.tensor([bool(rollout.correct) for rollout in batch.rollouts])
        return torch.where(correct, relative, relative.clamp(max=0))


class LengthReward(Reward):
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13), as TRL's `get_soft_overlong_punishment`.

    With n tokens, L = `max_completion_len` and a cache of C = `soft_punish_cache`: 0 up to L - C, then (L - C - n) / C,
    down to -1 at L and beyond.

    Args:
        max_completion_len: L, in tokens.
        soft_punish_cache: C, in tokens; 0 punishes by 0 or -1 alone.
        weight: factor in the total reward.
        of: what is counted.
        only_where: counts only in rollouts where another reward is high enough.

    Raises:
        UserError: L below 1, or C not between 0 and L.
    """

    def __init__(
        self,
        max_completion_len: int,
        soft_punish_cache: int,
        weight: float = 1.0,
        of: Counted = "completion",
        only_where: Gate | None = None,
    ) -> None:
        super().__init__(weight, only_where)
        if max_completion_len < 1 or not 0 <= soft_punish_cache <= max_completion_len:
            raise UserError(
                f"LengthReward: max_completion_len is {max_completion_len} and soft_punish_cache is {soft_punish_cache}; "
                "give at least 1 token, and a cache from 0 to that."
            )
        self.max_completion_len, self.soft_punish_cache, self.of = (
            max_completion_len,
            soft_punish_cache,
            _known(of, self),
        )

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """From 0 to -1 for each rollout, `[B]`."""
        over = lengths(batch, self.of) - (self.max_completion_len - self.soft_punish_cache)
        if self.soft_punish_cache == 0:
            return -(over > 0).float()
        return -(over / self.soft_punish_cache).clamp(0, 1)


def lengths(batch: RolloutBatch, of: Counted) -> Tensor:
    """Return the number of tokens of each completion, or of its reasoning, `[B]` in float32."""
    counts = [r.parts.cot_length if of == "reasoning" else len(r.completion.ids) for r in batch.rollouts]
    return torch.tensor(counts, dtype=torch.float32)


def _known(of: Counted, reward: Reward) -> Counted:
    if of not in get_args(Counted):
        raise UserError(f"{type(reward).__name__}: of is {of!r}; choose completion or reasoning.")
    return of
