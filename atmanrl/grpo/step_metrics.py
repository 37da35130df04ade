"""What an update logs of its optimizer steps: loss, gradient norm, entropy, and what the loss itself wants logged."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atmanrl.distributed import all_gather
from atmanrl.grpo.loss import Extreme, LossOutput

EXTREMES: dict[str, Callable[..., Any]] = {"min": min, "max": max}
"""How each kind of extreme is taken."""


class LossPart(NamedTuple):
    """B completions of a minibatch, padded to C tokens, after their loss was computed.

    Attributes:
        output: their loss and its metrics.
        completion_mask: `[B, C]` boolean, true at tokens of the completions.
        entropy: `[B, C]` in nats, 0 on padding.

    Example:
        `LossPart(LossOutput(loss, {"kl": kl}), mask, entropy)`
    """

    output: LossOutput
    completion_mask: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Tally:
    """One metric of a loss in one optimizer step, as sums and counts, so that the tallies of several parts can be added.

    Attributes:
        total: sum over tokens, or over completions.
        count: of these tokens or completions.
        by_completion: whether completions are counted, of which those that were left out count as 0.
        of: what is logged: `mean`, or the `min` or `max` of the completions' means.
        extreme: that least or greatest mean; None for `mean`, and without any completion.

    Example:
        `Tally(total=3.5, count=14, by_completion=False)`
    """

    total: float
    count: int
    by_completion: bool
    of: str = "mean"
    extreme: float | None = None

    @classmethod
    def counted(cls, metric: Tensor | Extreme, mask: Tensor) -> Tally:
        """Count a metric of one part.

        Args:
            metric: `[B, C]` or `[B]`.
            mask: `[B, C]` boolean, true at tokens of the completions.
        """
        values, of = (metric.values, metric.of) if isinstance(metric, Extreme) else (metric, "mean")
        lengths, by_completion = mask.sum(1), values.ndim == 1
        real = values[lengths > 0] if by_completion else values[mask]
        if of == "mean":
            return cls(float(real.sum()), len(real), by_completion)
        means = values.float() if by_completion else torch.where(mask, values, 0).sum(1) / lengths
        each = means[lengths > 0].tolist()
        return cls(0.0, len(real), by_completion, of, EXTREMES[of](each, default=None))

    @classmethod
    def merged(cls, parts: Sequence[Tally]) -> Tally:
        """Add the tallies of several parts."""
        extremes = [p.extreme for p in parts if p.extreme is not None]
        return replace(
            parts[0], total=sum(p.total for p in parts), count=sum(p.count for p in parts),
            extreme=EXTREMES[parts[0].of](extremes) if extremes else None,
        )  # fmt: skip

    def with_masked(self, completions: int) -> Tally:
        """Count completions that teach nothing as 0, where completions are counted."""
        if not self.by_completion or not completions:
            return self
        extreme = None if self.extreme is None else EXTREMES[self.of](self.extreme, 0.0)
        return replace(self, count=self.count + completions, extreme=extreme)


@dataclass(frozen=True)
class OptimizerStep:
    """What is logged of one optimizer step, as one process or as all of them saw it.

    Attributes:
        loss: what was minimized: the sum over parts.
        grad_norm: of the gradient, before it was clipped.
        tokens: how many were read.
        masked: completions of the minibatch that were left out as truncated.
        entropy: sum over tokens, in nats.
        tallies: of the loss's metrics, by name.

    Example:
        `OptimizerStep(loss=0.02, grad_norm=0.6, tokens=2311, masked=0, entropy=904.2, tallies={"kl": tally})`
    """

    loss: float
    grad_norm: float
    tokens: int
    masked: int
    entropy: float
    tallies: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Sequence[LossPart], grad_norm: Tensor, masked: int = 0) -> OptimizerStep:
        """Sum up the parts of one process's minibatch, which may be none.

        Args:
            parts: of the minibatch.
            grad_norm: of the gradient, before it was clipped.
            masked: completions of the minibatch that were left out as truncated.
        """
        return cls(
            loss=sum(float(part.output.loss.detach()) for part in parts),
            grad_norm=float(grad_norm),
            tokens=sum(int(part.completion_mask.sum()) for part in parts),
            masked=masked,
            entropy=sum(float(part.entropy.sum()) for part in parts),
            tallies=_merged(
                {name: Tally.counted(metric, part.completion_mask) for name, metric in part.output.metrics.items()}
                for part in parts
            ),
        )

    @classmethod
    def merged(cls, parts: Sequence[OptimizerStep]) -> OptimizerStep:
        """Return a step as all processes saw it, from what each of them saw."""
        total = {name: sum(getattr(p, name) for p in parts) for name in ("loss", "tokens", "entropy")}
        return replace(parts[0], **total, tallies=_merged(p.tallies for p in parts))


def step_metrics(own_steps: Sequence[OptimizerStep], names: Sequence[str] = ()) -> dict[str, float]:
    """Return the metrics of an update's optimizer steps, as TRL has them for each of its steps.

    Means count every token of a step once, however the step was divided; what belongs to completions counts completions. A
    step weighs as much as it has tokens (completions). A ratio without anything to count is 0. All processes must call it,
    after equally many steps.

    Args:
        own_steps: as this process saw them.
        names: of metrics that are 0 where no step has them.
    """
    steps = [OptimizerStep.merged(parts) for parts in zip(*all_gather(list(own_steps)), strict=True)]
    tallies: dict[str, list[Tally]] = {name: [] for name in names}
    for step in steps:
        for name, tally in step.tallies.items():
            tallies.setdefault(name, []).append(tally.with_masked(step.masked))
    return {
        "loss": statistics.fmean(step.loss for step in steps),
        "grad_norm": statistics.fmean(step.grad_norm for step in steps),
        "entropy": sum(step.entropy for step in steps) / max(sum(step.tokens for step in steps), 1),
        **{name: _mean(parts) for name, parts in tallies.items()},
    }


def _mean(tallies: Sequence[Tally]) -> float:
    """Return a metric of an update from those of its steps."""
    if not tallies or tallies[0].of == "mean":
        return sum(t.total for t in tallies) / max(sum(t.count for t in tallies), 1)
    return statistics.fmean([t.extreme for t in tallies if t.extreme is not None] or [0.0])


def _merged(parts: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    """Add tallies of several parts by name; a part may lack some."""
    named: dict[str, list[Tally]] = {}
    for tallies in parts:
        for name, tally in tallies.items():
            named.setdefault(name, []).append(tally)
    return {name: Tally.merged(each) for name, each in named.items()}
