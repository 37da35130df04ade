"""Causal importance of the reasoning, CIR, as a reward."""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.faithfulness.answers import has_answer
from atmanrl.faithfulness.base import Answer
from atmanrl.faithfulness.causal_importance import importance
from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch


class CausalImportanceReward(Reward):
    """CIR, how much the probability of an answer changes as the reasoning is cut short (Yu et al. 2026, arXiv 2604.22074).

    The mean over t in {0, 20, 40, 60, 80} % of JS(Bernoulli p(a | P, C_t) || Bernoulli p(a | P, C)), where C_t are the
    first t % of the reasoning's words, in nats, from 0 to ln 2. It is the figure of the metric `CausalImportance`, which is
    no measure of its success therefore. It abstains where there is no answer.

    Six teacher-forced forward passes a rollout, the prompt read once for all of a group; no gradient.

    Args:
        weight: factor in the total reward.
        answer: whose: the policy's `own`, right or wrong, or the `gold` one.
        only_where: counts only in rollouts where another reward is high enough. The own answer's importance is earned by
            wrong answers, too, unless a gate on the outcome is shut for them.

    Raises:
        UserError: there is no such answer.
    """

    uses_policy: ClassVar[bool] = True

    def __init__(self, weight: float = 1.0, answer: Answer = "own", only_where: Gate | None = None) -> None:
        super().__init__(weight, only_where)
        if answer not in get_args(Answer):
            raise UserError(
                f"CausalImportanceReward: answer is {answer!r}; choose one of {', '.join(get_args(Answer))}."
            )
        self.answer: Answer = answer

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """CIR of each rollout in nats, `[B]`, NaN without an answer."""
        rows = [i for i, rollout in enumerate(batch.rollouts) if has_answer(rollout, policy)]
        values = torch.full((len(batch),), float("nan"))
        if rows:
            values[rows] = importance([batch.rollouts[i] for i in rows], policy, self.answer).float()
        return values
