"""The format reward: is the answer where it belongs?"""

from __future__ import annotations

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rollouts.batch import Rollout, RolloutBatch


class FormatReward(Reward):
    """1 for a completion in the form that was asked for, 0 for any other, right or wrong.

    The form: the delimiter stands in it exactly once, the task can read an answer behind it, and the completion ended by
    itself, before the limit. Of stored traces, which no task has judged, any answer that is not blank can be read.
    """

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """1 or 0 for each rollout, `[B]`."""
        return torch.tensor([float(_is_in_form(rollout)) for rollout in batch.rollouts])


def _is_in_form(rollout: Rollout) -> bool:
    parts = rollout.parts
    readable = bool(parts.answer) if rollout.readable is None else rollout.readable
    return readable and rollout.completion.finished and parts.text.count(parts.opening) == 1
