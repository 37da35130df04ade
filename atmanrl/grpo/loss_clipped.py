"""`ClippedLoss`: GRPO's clipped objective (Eq. 5), with a penalty for leaving the reference policy."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.grpo.loss import Extreme, Loss, LossInputs, LossOutput, MinibatchCounts

Aggregation = Literal["grpo", "dr_grpo", "dapo"]
Importance = Literal["token", "sequence"]
LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +-20 before exp: far outside of any clip range, and finite."""


class ClippedLoss(Loss):
    """The clipped policy-gradient objective, negated (Eq. 5): -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A).

    r is the importance ratio of the policy to the one that sampled, A the advantage, of the completion or of the token.

    Args:
        epsilon: clip range of the importance ratio below 1.
        epsilon_high: clip range above 1; None takes epsilon.
        loss_type: `grpo` averages over each completion's tokens and then over completions; `dapo` over all tokens;
            `dr_grpo` divides the sum by a constant length.
        importance_sampling_level: of the importance ratio: `token` is how GRPO is implemented everywhere, `sequence` as
            the paper prints it.
        beta: weight of the KL penalty against the policy that the run started from (`kl_estimate`); at 0 no reference is
            kept.
        use_bias_correction_kl: whether the penalty is multiplied by the importance ratio, which makes its gradient that
            of the divergence itself (DeepSeek-V3.2, and TRL's default).
        mask_truncated_completions: whether completions without an end count in advantages alone, and teach nothing.

    Raises:
        UserError: an option outside of its range.
    """

    def __init__(
        self,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        loss_type: Aggregation = "grpo",
        importance_sampling_level: Importance = "token",
        beta: float = 0.0,
        use_bias_correction_kl: bool = True,
        mask_truncated_completions: bool = False,
    ) -> None:
        if not 0 < epsilon < 1:
            raise UserError(f"ClippedLoss: epsilon is {epsilon}; give a number between 0 and 1.")
        if epsilon_high is not None and epsilon_high <= 0:
            raise UserError(
                f"ClippedLoss: epsilon_high is {epsilon_high}; give a number above 0, or null to take epsilon."
            )
        if not 0 <= beta < math.inf:
            raise UserError(f"ClippedLoss: beta is {beta}; give a number from 0.")
        named = {
            "loss_type": (loss_type, Aggregation),
            "importance_sampling_level": (importance_sampling_level, Importance),
        }
        for name, (value, kinds) in named.items():
            if value not in get_args(kinds):
                raise UserError(f"ClippedLoss: {name} is {value!r}; choose one of {', '.join(get_args(kinds))}.")
        self.low, self.high = 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)
        self.loss_type: Aggregation = loss_type
        self.level: Importance = importance_sampling_level
        self.beta, self.use_bias_correction_kl = beta, use_bias_correction_kl
        self.uses_reference = beta > 0
        self.mask_truncated_completions = mask_truncated_completions
        clipping = ("low_mean", "high_mean", "region_mean", "low_min", "high_max")
        self.metric_names = tuple(f"clip_ratio/{name}" for name in clipping) + (("kl",) if beta else ())

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """Return the objective of B completions, the shares of their clipped ratios, and their divergence."""
        mask, advantages = inputs.completion_mask, inputs.token_advantages
        ratio = importance_log_ratio(inputs.logprobs, inputs.old_logprobs, mask, self.level).exp()
        terms = -torch.minimum(ratio * advantages, ratio.clamp(self.low, self.high) * advantages)
        metrics: dict[str, Tensor | Extreme] = {}
        if self.uses_reference and inputs.reference_logprobs is not None:
            kl = kl_estimate(inputs.logprobs, inputs.reference_logprobs, mask)
            kl = kl * ratio if self.use_bias_correction_kl else kl
            terms = terms + self.beta * kl
            metrics["kl"] = kl.detach()
        weights = mask.to(terms.dtype)
        if self.loss_type == "grpo":
            weights = weights / mask.sum(1, keepdim=True).clamp(min=1)
        detached = ratio.detach()
        # where ratio and advantage belong to completions, these are counted, and not their tokens
        by_completion = self.level == "sequence" and inputs.advantages.ndim == 1
        real = mask.any(1, keepdim=True) if by_completion else mask
        low = (detached < self.low) & (advantages < 0) & real
        high = (detached > self.high) & (advantages > 0) & real
        if by_completion:
            low, high = low[:, 0], high[:, 0]
        metrics |= {
            "clip_ratio/low_mean": low, "clip_ratio/high_mean": high, "clip_ratio/region_mean": low | high,
            "clip_ratio/low_min": Extreme(low, "min"), "clip_ratio/high_max": Extreme(high, "max"),
        }  # fmt: skip
        return LossOutput((terms * weights).sum() / normalizer(self.loss_type, inputs.counts), metrics)


def normalizer(loss_type: Aggregation, counts: MinibatchCounts) -> float:
    """Return what the summed loss of a minibatch is divided by."""
    divisors = {"grpo": counts.sequences, "dapo": counts.tokens, "dr_grpo": counts.sequences * counts.max_length}
    return float(divisors[loss_type])


def importance_log_ratio(logprobs: Tensor, old_logprobs: Tensor, completion_mask: Tensor, level: Importance) -> Tensor:
    """Return the log importance ratio: `[B, C]` at token level, `[B, 1]` at sequence level.

    At sequence level it is the mean over a completion's tokens (its exponential is GSPO's ratio), and not their sum, so that
    it does not grow with length.
    """
    ratio = (logprobs - old_logprobs) * completion_mask
    if level == "sequence":
        ratio = ratio.sum(1, keepdim=True) / completion_mask.sum(1, keepdim=True).clamp(min=1)
    return ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, completion_mask: Tensor) -> Tensor:
    """Return the k3 estimate `[B, C]` of KL(policy || reference) at each token: exp(d) - d - 1 with d = reference - policy.

    Never negative, and without bias for tokens drawn from the policy (J. Schulman, "Approximating KL divergence").
    """
    difference = (reference_logprobs - logprobs) * completion_mask
    return difference.clamp(max=LOG_RATIO_LIMIT).exp() - difference - 1
