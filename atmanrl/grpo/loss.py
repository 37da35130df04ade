"""The plugin point `Loss`: what an optimizer step minimizes, from log-probabilities and advantages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from atmanrl.errors import UserError


@dataclass(frozen=True)
class MinibatchCounts:
    """Sizes of a full minibatch, over all its parts and all processes: what its summed loss is divided by.

    Attributes:
        sequences: completions of the minibatch, including truncated ones that teach nothing.
        tokens: tokens of the completions that teach, at least 1.
        max_length: most tokens that a completion may have (`data.max_new_tokens`).

    Example:
        `MinibatchCounts(sequences=16, tokens=2311, max_length=1024)`
    """

    sequences: int
    tokens: int
    max_length: int


@dataclass(frozen=True)
class LossInputs:
    """B completions of a minibatch, padded to C tokens; nothing on padding may matter.

    Attributes:
        logprobs: `[B, C]` log-probabilities under the policy, with gradient.
        old_logprobs: `[B, C]` under the policy that sampled the completions.
        reference_logprobs: `[B, C]` under the policy that the run started from; None unless `Loss.uses_reference`.
        advantages: `[B]` one for each completion, or `[B, C]` one for each token.
        completion_mask: `[B, C]` boolean, true at tokens of the completion.
        entropy: `[B, C]` in nats, of the distribution that each token was drawn from, without gradient.
        counts: sizes of the full minibatch, of which these completions are a part.

    Example:
        Two completions, of two tokens and of one: `LossInputs(logprobs, old_logprobs, None, advantages=tensor([0.5, -0.5]),
        completion_mask=tensor([[True, True], [True, False]]), entropy=entropy, counts=MinibatchCounts(2, 3, 1024))`
    """

    logprobs: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor | None
    advantages: Tensor
    completion_mask: Tensor
    entropy: Tensor
    counts: MinibatchCounts

    @property
    def token_advantages(self) -> Tensor:
        """The advantages in a shape that multiplies `[B, C]`: `[B, 1]`, or `[B, C]` where every token has its own."""
        return self.advantages[:, None] if self.advantages.ndim == 1 else self.advantages


@dataclass(frozen=True)
class Extreme:
    """A metric of which the least or the greatest completion is logged, and not the mean.

    Attributes:
        values: `[B, C]`, of which each completion's mean counts, or `[B]`.
        of: `min` or `max` over the completions of an optimizer step; an update logs the mean over its steps.

    Example:
        `Extreme(tensor([0.0, 0.25]), "max")`
    """

    values: Tensor
    of: Literal["min", "max"]


@dataclass(frozen=True)
class LossOutput:
    """What is minimized, and what is logged.

    Attributes:
        loss: scalar with gradient: what these completions add to the minibatch's loss. A minibatch is computed in parts
            whose losses are summed, so divide a sum by `LossInputs.counts` and take no mean of a part.
        metrics: by full name, without gradient. `[B, C]`: the mean over the tokens of an update is logged; `[B]`: the mean
            over its completions, where truncated ones that teach nothing count as 0; or an `Extreme`.

    Example:
        `LossOutput(loss, {"kl": kl.detach(), "clip_ratio/high_max": Extreme(clipped, "max")})`
    """

    loss: Tensor
    metrics: Mapping[str, Tensor | Extreme] = field(default_factory=dict)


class Loss(ABC):
    """What an optimizer step minimizes.

    Subclass it in a module of your own and name the class in YAML by its `class_path` as `model.loss`; nothing needs to be
    registered.

    Attributes:
        uses_reference: whether it needs log-probabilities under the policy that the run started from.
        mask_truncated_completions: whether completions without an end count in advantages alone: they are not even read.
        metric_names: metrics that are logged as 0 in an update that has nothing to learn from; others are then left out.
    """

    uses_reference: bool = False
    mask_truncated_completions: bool = False
    metric_names: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> LossOutput | Tensor:
        """Return the loss of B completions.

        Args:
            inputs: log-probabilities, advantages and counts.

        Returns:
            The loss and its metrics, or the loss alone as a scalar tensor.
        """


OWN_METRICS = frozenset({"loss", "grad_norm", "entropy", "lr"})
"""What an update logs whatever its loss: no metric of a loss may bear these names."""


def evaluate(loss: Loss, inputs: LossInputs) -> LossOutput:
    """Call a loss and check what it returns.

    Raises:
        UserError: it is no scalar with a gradient, or a metric has a wrong shape or name; the class is named.
    """
    kind, returned = type(loss).__name__, loss(inputs)
    output = returned if isinstance(returned, LossOutput) else LossOutput(returned)
    value = output.loss
    if not isinstance(value, Tensor) or value.ndim:
        what = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"the loss {kind} gave {what}; return a scalar tensor, or a LossOutput with one.")
    if inputs.logprobs.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise UserError(f"the loss {kind} has no gradient: let it depend on inputs.logprobs, undetached.")
    shape = inputs.completion_mask.shape
    for name, metric in output.metrics.items():
        values = metric.values if isinstance(metric, Extreme) else metric
        if name in OWN_METRICS:
            raise UserError(f"the loss {kind} has a metric {name!r}, which every update logs: give it another name.")
        if values.shape not in (shape, shape[:1]):
            raise UserError(
                f"the loss {kind} gave its metric {name!r} the shape {list(values.shape)}; give {list(shape)}, a value for "
                f"each token, or {list(shape[:1])}, one for each completion."
            )
    return output
