"""The clipped objective (Eq. 5), with a penalty for leaving the reference policy."""

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
        clipped_low: boolean, the ratio lies below the range and the advantage is negative: `[B, C]`, or `[B, 1]` where
            the ratio belongs to the sequence.
        clipped_high: the same above the range, with positive advantages.
        kl: `[B, C]` estimate of the divergence from the reference policy, without gradient; None without a reference.
    """

    loss: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    kl: Tensor | None = None


def normalizer(aggregation: Aggregation, sequences: int, tokens: int, max_length: int) -> float:
    """What the summed loss of a minibatch is divided by, from counts over the whole minibatch and all processes."""
    return float({"grpo": sequences, "dapo": max(tokens, 1), "dr_grpo": sequences * max_length}[aggregation])


def importance_log_ratio(logprobs: Tensor, old: Tensor, completion: Tensor, level: Importance) -> Tensor:
    """Log importance ratio: `[B, C]`, or `[B, 1]` at sequence level, the mean over a completion's tokens.

    The value at sequence level is the mean (its exponential is GSPO's ratio), so that it does not grow with length.
    """
    ratio = (logprobs - old) * completion
    if level == "sequence":
        ratio = ratio.sum(1, keepdim=True) / completion.sum(1, keepdim=True).clamp(min=1)
    return ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def kl_estimate(logprobs: Tensor, reference: Tensor, completion: Tensor) -> Tensor:
    """The k3 estimate `[B, C]` of KL(policy || reference) at each token: exp(d) - d - 1 with d = reference - logprobs.

    Never negative, and without bias for tokens drawn from the policy (J. Schulman, "Approximating KL divergence").
    """
    difference = (reference - logprobs) * completion
    return difference.clamp(max=LOG_RATIO_LIMIT).exp() - difference - 1


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
    reference: Tensor | None = None,
    beta: float = 0.0,
    use_bias_correction_kl: bool = True,
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
        reference: `[B, C]` under the reference policy; None adds no penalty.
        beta: weight of the penalty, which is `kl_estimate`.
        use_bias_correction_kl: whether the penalty is multiplied by the importance ratio, which makes its gradient that
            of the divergence itself (DeepSeek-V3.2, and TRL's default).
    """
    high = epsilon if epsilon_high is None else epsilon_high
    ratio = importance_log_ratio(logprobs, old, completion, level).exp()
    advantage = advantages[:, None]
    terms = -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + high) * advantage)
    kl = None
    if reference is not None:
        kl = kl_estimate(logprobs, reference, completion)
        kl = kl * ratio if use_bias_correction_kl else kl
        terms = terms + beta * kl
    weights = completion.to(terms.dtype)
    if aggregation == "grpo":
        weights = weights / completion.sum(1, keepdim=True).clamp(min=1)
    detached = ratio.detach()
    real = completion if level == "token" else completion.any(1, keepdim=True)
    return Objective(
        loss=(terms * weights).sum() / divide_by,
        clipped_low=(detached < 1 - epsilon) & (advantage < 0) & real,
        clipped_high=(detached > 1 + high) & (advantage > 0) & real,
        kl=None if kl is None else kl.detach(),
    )
