"""What an update logs of its optimizer steps: loss, gradient norm, entropy, and what the loss itself wants logged."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from atmanrl.distributed import all_gather
from atmanrl.grpo.loss import Extreme, LossOutput


@dataclass(frozen=True)
class Tally:
    """One metric of a loss in one optimizer step: what its value is made of, so that parts can be added.

    Attributes:
        total: sum over tokens, or over completions.
        count: of these tokens or completions.
        by_completion: whether completions are counted, and those that were left out count as 0.
        least, greatest: of the completions' means; None without any.
        of: which of these is logged.
    """

    total: float
    count: int
    by_completion: bool
    least: float | None = None
    greatest: float | None = None
    of: str = "mean"

    @classmethod
    def counted(cls, metric: Tensor | Extreme, mask: Tensor) -> Tally:
        """The tally of a part.

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
        return cls(0.0, len(real), by_completion, min(each, default=None), max(each, default=None), of)

    @classmethod
    def merged(cls, parts: Sequence[Tally]) -> Tally:
        """The tally of several parts."""
        return replace(
            parts[0], total=sum(p.total for p in parts), count=sum(p.count for p in parts),
            least=min((p.least for p in parts if p.least is not None), default=None),
            greatest=max((p.greatest for p in parts if p.greatest is not None), default=None),
        )  # fmt: skip

    def left_out(self, completions: int) -> Tally:
        """The tally with completions that teach nothing, where completions are counted."""
        if not self.by_completion or not completions:
            return self
        least = None if self.least is None else min(self.least, 0.0)
        greatest = None if self.greatest is None else max(self.greatest, 0.0)
        return replace(self, count=self.count + completions, least=least, greatest=greatest)


@dataclass(frozen=True)
class Step:
    """One optimizer step, as one process saw it or as all did.

    Attributes:
        loss: what was minimized: the sum over parts.
        norm: of the gradient, before it was clipped.
        tokens: how many were read.
        masked: completions of the minibatch that were left out as truncated.
        entropy: sum over tokens.
        tallies: of the loss's metrics, by name.
    """

    loss: float
    norm: float
    tokens: int
    masked: int
    entropy: float
    tallies: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence[Step]) -> Step:
        """A step as all processes saw it."""
        total = {name: sum(getattr(p, name) for p in parts) for name in ("loss", "tokens", "entropy")}
        return replace(parts[0], **total, tallies=_merged(p.tallies for p in parts))


class StepMetrics:
    """Metrics of the optimizer steps of one update, as TRL has them for each of its steps.

    Means count every token of a step once, however it was parted; what belongs to completions counts completions. A step
    weighs as much as it has tokens (completions).

    Args:
        steps: of the update so far.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)
        self._parts: list[tuple[LossOutput, Tensor, Tensor]] = []

    def add(self, output: LossOutput, mask: Tensor, entropy: Tensor) -> None:
        """One part of a minibatch.

        Args:
            output: its loss.
            mask: `[B, C]` boolean, true at tokens of the completions.
            entropy: `[B, C]`, 0 on padding.
        """
        self._parts.append((output, mask, entropy))

    def add_step(self, norm: Tensor, masked: int = 0) -> None:
        """An optimizer step follows on the parts given so far.

        Args:
            norm: of the gradient, before it was clipped.
            masked: completions of the minibatch that were left out as truncated.
        """
        self.steps.append(Step(
            loss=sum(float(output.loss.detach()) for output, *_ in self._parts),
            norm=float(norm),
            tokens=sum(int(mask.sum()) for _, mask, _ in self._parts),
            masked=masked,
            entropy=sum(float(entropy.sum()) for *_, entropy in self._parts),
            tallies=_merged(
                {name: Tally.counted(metric, mask) for name, metric in output.metrics.items()}
                for output, mask, _ in self._parts
            ),
        ))  # fmt: skip
        self._parts = []

    def of_all_processes(self) -> StepMetrics:
        """The metrics of all processes' parts. All must call it, after equally many steps."""
        return StepMetrics([Step.merged(parts) for parts in zip(*all_gather(self.steps), strict=True)])

    def means(self, names: Sequence[str] = ()) -> dict[str, float]:
        """Of the whole update; a ratio without anything to count is 0.

        Args:
            names: of metrics that are 0 where no step has them.
        """
        steps = self.steps
        tallies: dict[str, list[Tally]] = {name: [] for name in names}
        for step in steps:
            for name, tally in step.tallies.items():
                tallies.setdefault(name, []).append(tally.left_out(step.masked))
        return {
            "loss": statistics.fmean(s.loss for s in steps),
            "grad_norm": statistics.fmean(s.norm for s in steps),
            "entropy": sum(s.entropy for s in steps) / max(sum(s.tokens for s in steps), 1),
            **{name: _mean(parts) for name, parts in tallies.items()},
        }


def _mean(tallies: Sequence[Tally]) -> float:
    """A metric of an update from those of its steps."""
    if not tallies or tallies[0].of == "mean":
        return sum(t.total for t in tallies) / max(sum(t.count for t in tallies), 1)
    extremes = [t.least if t.of == "min" else t.greatest for t in tallies]
    return statistics.fmean([value for value in extremes if value is not None] or [0.0])


def _merged(parts: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    """Tallies of several parts by name; a part may lack some."""
    named: dict[str, list[Tally]] = {}
    for tallies in parts:
        for name, tally in tallies.items():
            named.setdefault(name, []).append(tally)
    return {name: Tally.merged(each) for name, each in named.items()}
