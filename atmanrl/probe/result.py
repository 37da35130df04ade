"""What a probe returns."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ProbeResult:
    """What the probe measured for B targets or rollouts; NaN (or None) for a rollout that was not probed.

    Attributes:
        reward: `[B]` saliency reward (Eq. 3), in the probe's orientation; of an attribution, nats a token.
        saliency: B lists, one value for each token of the reasoning.
        loss_initial: `[B]` answer loss in nats a token under the initial mask.
        loss_final: `[B]` the same under the optimized mask.
        gradients: `[B]` gradients that each rollout took, 0 where it was not probed; rollouts that are alike share them.
        below_epsilon: share of gradient entries smaller than Adam's epsilon.
        masks: B masks H, `[R, T]` each, if they were asked for; an attribution has none. Rollouts that are alike share one.
        losses: B lists of (step, loss in nats a token) in order, one pair for each gradient on the rollout's path.
        seconds: how long all of it took.

    Example:
        Of two rollouts, the second without a delimiter: `ProbeResult(reward=tensor([0.09, nan]), saliency=[[0.02, 0.31],
        None], loss_initial=tensor([7.8, nan]), loss_final=tensor([0.01, nan]), gradients=tensor([28, 0]),
        below_epsilon=0.02, masks=[None, None], losses=[[(0, 7.8), (12, 5.1)], []], seconds=0.4)`
    """

    reward: Tensor
    saliency: list[list[float] | None]
    loss_initial: Tensor
    loss_final: Tensor
    gradients: Tensor
    below_epsilon: float
    masks: list[Tensor | None]
    losses: list[list[tuple[int, float]]]
    seconds: float = 0.0

    @classmethod
    def empty(cls, device: torch.device) -> ProbeResult:
        """Return the result of no target."""
        none, counts = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.long, device=device)
        return cls(none, [], none, none, counts, 0.0, [], [])

    def at(self, places: Sequence[int | None]) -> ProbeResult:
        """Return the result of a batch of which each item is one of the targets here, or none of them.

        Args:
            places: for each item of the batch the target's index; None where it was not probed.
        """
        # one more item stands behind the targets: that of a rollout that was not probed
        numbers = [len(self.saliency) if place is None else place for place in places]
        saliency, masks, losses = [*self.saliency, None], [*self.masks, None], [*self.losses, []]

        def spread(values: Tensor, missing: float) -> Tensor:
            return torch.cat([values, values.new_full((1,), missing)])[numbers]

        kind, nan = torch.get_default_dtype(), float("nan")
        return ProbeResult(
            reward=spread(self.reward, nan).to(kind), saliency=[copy(saliency[k]) for k in numbers],
            loss_initial=spread(self.loss_initial, nan).to(kind), loss_final=spread(self.loss_final, nan).to(kind),
            gradients=spread(self.gradients, 0), below_epsilon=self.below_epsilon, masks=[masks[k] for k in numbers],
            losses=[copy(losses[k]) for k in numbers], seconds=self.seconds,
        )  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Return the means over the probed rollouts, under the names that logs have."""
        return {
            "probe/loss_initial": float(self.loss_initial.nanmean()),
            "probe/loss_final": float(self.loss_final.nanmean()),
            "probe/gradients": float(self.gradients[~self.reward.isnan()].float().mean()),
            "probe/below_epsilon": self.below_epsilon,
            "probe/seconds": self.seconds,
        }
