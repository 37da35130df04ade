"""The clipped objective (Eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["grpo", "dr_grpo", "dapo"]
Importance = Literal["token", "sequence"]
LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +-20 before exp: far outside of any clip range, and finite."""


@dataclass(frozen=True)
class Objective:
    """What is minimized, and what is logged.

    Attributes:
        loss: scalar, to be minimized.
        clipped_low: `[B, C]` boolean, the ratio lies below the range and the advantage is negative.
        clipped_high: `[B, C]` boolean, the ratio lies above the range and the advantage is positive.
    """

    loss: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def normalizer(aggregation: Aggregation, sequences: int, tokens: int, max_length: int) -> float:
    """What the summed loss of a minibatch is divided by, from counts over the whole minibatch and all processes."""
    return float({"grpo": sequences, "dapo": tokens, "dr_grpo": sequences * max_length}[aggregation])


def importance_log_ratio(logprobs: Tensor, old: Tensor, completion: Tensor, level: Importance) -> Tensor:
    """Log importance ratio `[B, C]`; at sequence level the mean over a completion's tokens, the same for each of them.

    The value at sequence level is the mean (its exponential is GSPO's ratio), so that it does not grow with length.
    """
    ratio = (logprobs - old) * completion
    if level == "sequence":
        mean = ratio.sum(1, keepdim=True) / completion.sum(1, keepdim=True).clamp(min=1)
        ratio = mean.expand_as(logprobs)
    return ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_objective(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    completion: Tensor,
    divide_by: float,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    aggregation: Aggregation = "grpo",
    level: Importance = "token",
) -> Objective:
    """The clipped policy-gradient objective, negated (Eq. 5): -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A).

    Args:
        logprobs: `[B, C]` of the completion tokens under the policy, with gradient.
        old: `[B, C]` under the policy that sampled them.
        advantages: `[B]`.
        completion: `[B, C]` boolean, true at tokens of the completion.
        divide_by: see `normalizer`; given from outside so that a minibatch may be computed in parts.
        epsilon: clip range below 1.
        epsilon_high: clip range above 1, `epsilon` if None.
        aggregation: `grpo` averages over each completion's tokens and then over completions; `dapo` over all tokens;
            `dr_grpo` divides the sum by a constant length.
        level: of the importance ratio: `token` is how GRPO is implemented everywhere, `sequence` as the paper prints it.
    """
    high = epsilon if epsilon_high is None else epsilon_high
    ratio = importance_log_ratio(logprobs, old, completion, level).exp()
    advantage = advantages[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + high) * advantage)
    weights = completion.to(gain.dtype)
    if aggregation == "grpo":
        weights = weights / completion.sum(1, keepdim=True).clamp(min=1)
    detached = ratio.detach()
    return Objective(
        loss=-(gain * weights).sum() / divide_by,
        clipped_low=(detached < 1 - epsilon) & (advantage < 0) & completion,
        clipped_high=(detached > 1 + high) & (advantage > 0) & completion,
    )
