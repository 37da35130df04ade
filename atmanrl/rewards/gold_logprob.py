"""The gold answer's log-probability after the reasoning, as a reward."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.models.teacher_forcing import answer_logprobs
from atmanrl.probe.target import policy_target
from atmanrl.rewards.base import Reward
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch


class GoldLogprobReward(Reward):
    """Mean log-probability of the gold answer's tokens after the policy's own reasoning, in nats a token, at most 0.

    (1 / N) sum_k log p(a_k | P, C, a_1 ... a_(k-1)) with prompt P, reasoning C and delimiter as they were sampled and gold
    answer a of N tokens, teacher-forced by the policy as it is, at temperature 1 (Kwiatkowski et al. 2026, arXiv
    2602.03979). No gradient goes through it. It abstains where there is no delimiter, or no
    gold answer.

    One forward pass over each rollout, the prompt read once for the group.

    Args:
        weight: factor in the total reward.
        include_eos: whether the answer includes what closes it and the end-of-sequence token: 7 is then no beginning of 72.
        micro_batch_tokens: most tokens, padding counted, in one forward pass: memory, not the result.
        only_where: counts only in rollouts where another reward is high enough.
    """

    uses_policy: ClassVar[bool] = True

    def __init__(
        self,
        weight: float = 1.0,
        include_eos: bool = False,
        micro_batch_tokens: int = 16384,
        only_where: Gate | None = None,
    ) -> None:
        super().__init__(weight, only_where)
        self.include_eos, self.micro_batch_tokens = include_eos, micro_batch_tokens

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """The mean log-probability of each rollout's gold answer, `[B]`, NaN where it abstains."""
        rows = [i for i, r in enumerate(batch.rollouts) if r.parts.answer is not None and r.problem.gold.strip()]
        targets = [policy_target(batch.rollouts[i], policy, self.include_eos) for i in rows]
        logprobs = answer_logprobs(
            policy, [t.prompt_ids for t in targets], [t.context_ids for t in targets], [t.answer_ids for t in targets],
            self.micro_batch_tokens,
        )  # fmt: skip
        values = torch.full((len(batch),), float("nan"))
        for i, each in zip(rows, logprobs, strict=True):
            values[i] = each.mean()
        return values
