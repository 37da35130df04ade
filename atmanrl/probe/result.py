"""What a probe finds, and where it stands among the rollouts of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ProbeResult:
    """What the probe found for B rollouts; NaN (or None) where a rollout has no delimiter or no reasoning.

    Attributes:
        reward: `[B]` saliency reward (Eq. 3), in the probe's orientation; of an attribution, nats a token.
        saliency: B lists, one value for each token of the reasoning.
        loss_initial: `[B]` answer loss in nats a token under the initial mask.
        loss_final: `[B]` the same under the optimized mask.
        gradients: `[B]` gradients that each rollout took, 0 where it was not probed; rollouts that are alike share them.
        below_epsilon: share of gradient entries smaller than Adam's epsilon.
        masks: B masks H, `[R, T]` each, if they were asked for; an attribution has none.
        losses: B lists of (step, loss in nats a token) in order, one pair for each gradient on the rollout's path.
        seconds: of the whole solve.
    """

    reward: Tensor
    saliency: list[list[float] | None]
    loss_initial: Tensor
    loss_final: Tensor
    gradients: Tensor
    below_epsilon: float
    masks: list[Tensor | None]
    losses: list[list[tuple[int, float]]]
    seconds: float

    @classmethod
    def empty(cls, size: int, device: torch.device) -> ProbeResult:
        """Of `size` rollouts of which none has been probed."""
        nan = torch.full((size,), float("nan"), device=device)
        return cls(
            reward=nan, saliency=[None] * size, loss_initial=nan.clone(), loss_final=nan.clone(),
            gradients=torch.zeros(size, dtype=torch.long, device=device), below_epsilon=0.0, masks=[None] * size,
            losses=[[] for _ in range(size)], seconds=0.0,
        )  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Means over the probed rollouts, under the names of the logs."""
        return {
            "probe/loss_initial": float(self.loss_initial.nanmean()),
            "probe/loss_final": float(self.loss_final.nanmean()),
            "probe/gradients": float(self.gradients[~self.reward.isnan()].float().mean()),
            "probe/below_epsilon": self.below_epsilon,
            "probe/seconds": self.seconds,
        }


@dataclass(frozen=True)
class Found:
    """Which rollout of a batch has which of the distinct targets.

    Attributes:
        rollouts: those that are probed.
        targets: the target of each.
        device: of the results.
    """

    rollouts: list[int]
    targets: list[int]
    device: torch.device

    def put(self, result: Tensor, values: Tensor) -> None:
        """Write the targets' values into the rollouts' places of `result [B]`."""
        result[torch.tensor(self.rollouts, device=self.device)] = values.to(result.dtype)[self.targets]
