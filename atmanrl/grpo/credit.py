"""`TokenCredit`: a completion's advantage is shared out over its tokens, by what a reward gives to single tokens."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.grpo.experience import Experience
from atmanrl.rewards import Reward
from atmanrl.rollouts.batch import Rollout


@dataclass(frozen=True)
class TokenCredit:
    """Weights of a completion's tokens, by which its advantage is multiplied.

    Let s be what the reward gives to T tokens (the saliency reward: to those of the reasoning), negative values taken for
    0. Token t weighs floor + (1 - floor) s_t / mean(s): at least the floor, 1 on average, and 1 throughout where all are
    alike. The tokens behind them (delimiter, answer, end of sequence) weigh 1, and so do all tokens of a rollout to which
    the reward gives nothing, because it abstained, its gate was shut or its group was not probed.

    Attributes:
        reward: name of the reward. Its weight in the total may be 0, so that it shares out the others' advantages alone.
        floor: from 0 to 1, which is plain GRPO.

    Raises:
        UserError: a floor outside of its range.

    Example:
        With a floor of 0.1 and a saliency of [0.0, 0.3, 0.1] the reasoning's tokens weigh [0.1, 2.125, 0.775].
    """

    reward: str = "saliency"
    floor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a floor outside of its range."""
        if not 0 <= self.floor <= 1:
            raise UserError(f"model.credit.floor is {self.floor}; give a number from 0 to 1.")

    def weights(self, rollout: Rollout) -> Tensor:
        """The weight of each token of a completion, `[C]` in float32.

        Raises:
            UserError: the reward gave a token a value that is not finite.
        """
        weights = torch.ones(len(rollout.completion.ids))
        values = torch.tensor(rollout.token_values.get(self.reward, ()), dtype=torch.float64)
        if not values.isfinite().all():
            raise UserError(
                f"model.credit: the reward {self.reward!r} gave a token of problem {rollout.problem.id}, sample "
                f"{rollout.sample}, a value that is not finite; mend its token_values."
            )
        values = values.clamp(min=0)
        if values.any():
            shares = values / values.mean()
            weights[: len(values)] = (self.floor + (1 - self.floor) * shares).float()
        return weights

    def share_out(self, experience: Experience) -> Experience:
        """The experience with advantages of single tokens, a tensor `[C]` for each rollout."""
        advantages = [
            advantage * self.weights(rollout)
            for advantage, rollout in zip(experience.advantages, experience.rollouts, strict=True)
        ]
        return replace(experience, advantages=advantages)

    def metrics(self, experience: Experience) -> dict[str, float]:
        """What is logged: the share of rollouts whose tokens differ in weight, and how many of their tokens really count."""
        given = [len(rollout.token_values.get(self.reward, ())) for rollout in experience.rollouts]
        weights = [self.weights(r)[:n].double() for r, n in zip(experience.rollouts, given, strict=True) if n]
        effective = [float(w.sum() ** 2 / (len(w) * (w * w).sum())) for w in weights]
        return {
            "credit/rollouts": len(weights) / len(given),
            "credit/effective_tokens": statistics.fmean(effective) if effective else 1.0,
        }


def token_credit(credit: TokenCredit | str | None, rewards: Mapping[str, Reward]) -> TokenCredit | None:
    """The token credit that `model.credit` names: a text is the name of a reward.

    Raises:
        UserError: there is no such reward.
    """
    credit = TokenCredit(credit) if isinstance(credit, str) else credit
    if credit is not None and credit.reward not in rewards:
        raise UserError(
            f"model.credit: there is no reward {credit.reward!r} in model.rewards; choose one of {', '.join(rewards)}."
        )
    return credit
