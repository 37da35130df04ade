"""The plugin point `Reward`, and what a reward returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch


@dataclass(frozen=True)
class RewardOutput:
    """What a reward gives to B rollouts.

    Attributes:
        values: `[B]` one number for each rollout; NaN where the reward abstains.
        metrics: what is to be logged of this call, by full name.
        token_values: for each rollout one number for each token of its completion, or of the completion's beginning
            (the reasoning); None for a rollout without any, and None as a whole where the reward has no opinion on
            single tokens. They are kept in `Rollout.token_values`, under the reward's name.
        factors: `[B]` what each value is multiplied by in the total, besides the reward's weight; where it is 0 the
            reward adds nothing, whatever its value. For a reward that looks at some rollouts in place of all: with
            probability p, factors of 1 / p there and 0 elsewhere leave the mean total as it is. None is 1 everywhere.

    Example:
        `RewardOutput(torch.tensor([0.0, -1.0]), {"my/mean_words": 41.5}, [[0.1, 0.7, 0.0], None])`
    """

    values: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    token_values: Sequence[Sequence[float] | Tensor | None] | None = None
    factors: Tensor | None = None


class Reward(ABC):
    """What a rollout is worth, in one respect.

    Subclass it in a module of your own and name the class in YAML by its `class_path`, under a name of its own in
    `model.rewards`; nothing needs to be registered.

    Args:
        weight: factor in the total reward.
        only_where: counts only in rollouts where another reward is high enough; None counts everywhere.
        timeout_s: seconds that one call may take; None sets no limit (see `faults.time_limit`).

    Attributes:
        uses_policy: whether it runs the policy again. Such rewards are left out of evaluation unless asked for.

    Raises:
        UserError: a time limit that is no time.
    """

    uses_policy: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0, only_where: Gate | None = None, timeout_s: float | None = None) -> None:
        if timeout_s is not None and timeout_s <= 0:
            raise UserError(f"{type(self).__name__}: timeout_s is {timeout_s}; give seconds above 0, or null.")
        self.weight = weight
        self.only_where = only_where
        self.timeout_s = timeout_s

    @abstractmethod
    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor | RewardOutput:
        """Judge B rollouts.

        A gated reward gets only the rollouts that pass its gate, as groups of one.

        Returns:
            One number `[B]` for each rollout, NaN where the reward abstains: as a tensor, or in a `RewardOutput` together
            with metrics and values for single tokens.
        """

    def observe(self, batch: RolloutBatch) -> dict[str, float]:
        """Take note of an update's rollouts, once those of all processes are known; nothing by default.

        A reward that adapts while a policy is trained does so here: every process calls it once an update, with the same
        rollouts in the same order.

        Returns:
            What is to be logged of it, by full name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of the reward: numbers, texts, lists, dicts and tensors; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from what `state_dict` gave; nothing by default."""
