"""What an update logs, under the names that TRL's users know. `docs/metrics.md` explains each of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from atmanrl.distributed import everyone
from atmanrl.grpo.advantages import Scaling
from atmanrl.grpo.minibatches import is_flat
from atmanrl.grpo.objective import Objective
from atmanrl.grpo.scoring import Scored
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import RolloutBatch


def rollout_figures(batch: RolloutBatch, scores: Scores, scaling: Scaling) -> dict[str, float]:
    """Rewards, their spread, lengths and accuracy of one update's rollouts."""
    groups = scores.total.view(-1, batch.group_size)
    flat = [is_flat(scores.total if scaling == "batch" else group) for group in groups]
    lengths = [len(r.completion.ids) for r in batch.rollouts]
    ended = [len(r.completion.ids) for r in batch.rollouts if r.completion.finished] or [0]
    figures = {
        "reward": float(groups.mean()),
        "reward_std": float(scores.total.std()),
        "reward_group_std": float(groups.std(1).mean()),
        "frac_reward_zero_std": statistics.fmean(flat),
        "accuracy": sum(bool(r.right) for r in batch.rollouts) / len(batch),
        "completions/clipped_ratio": sum(not r.completion.finished for r in batch.rollouts) / len(batch),
        "cot/mean_length": statistics.fmean(r.parts.cot_length for r in batch.rollouts),
    }
    for kind, values in (("", lengths), ("terminated_", ended)):
        figures[f"completions/mean_{kind}length"] = statistics.fmean(values)
        figures[f"completions/min_{kind}length"] = float(min(values))
        figures[f"completions/max_{kind}length"] = float(max(values))
    for name, given in scores.values.items():
        figures[f"rewards/{name}/mean"] = float(given.nanmean())
        figures[f"rewards/{name}/std"] = float(given[~given.isnan()].std()) if (~given.isnan()).sum() > 1 else 0.0
        figures[f"rewards/{name}/group_std"] = _group_spread(given, batch.group_size)
        figures[f"rewards/{name}/abstained"] = float(given.isnan().float().mean())
    return figures


def _group_spread(values: Tensor, group_size: int) -> float:
    """Mean over groups of the standard deviation of the valid values: what a reward really contributes to advantages."""
    spreads = [float(g[~g.isnan()].std()) for g in values.view(-1, group_size) if (~g.isnan()).sum() > 1]
    return statistics.fmean(spreads) if spreads else 0.0


@dataclass(frozen=True)
class Step:
    """One optimizer step, as one process saw it or as all did.

    Attributes:
        loss: what was minimized.
        norm: of the gradient, before it was clipped.
        tokens: how many were read; sequences: in how many completions.
        masked: completions of the minibatch that were left out as truncated.
        by_sequence: whether ratios belong to sequences, and clipped ones are counted so.
        entropy, kl: sums over tokens.
        low, high: how many tokens (sequences) were clipped.
        lowest, highest: share that was clipped in the least and the most clipped sequence; None without any.
    """

    loss: float
    norm: float
    tokens: int
    sequences: int
    masked: int
    by_sequence: bool
    entropy: float
    kl: float
    low: int
    high: int
    lowest: float | None
    highest: float | None

    @property
    def counted(self) -> int:
        """What `low` and `high` are a part of; no truncated completion is clipped."""
        return self.sequences + self.masked if self.by_sequence else self.tokens

    @classmethod
    def merged(cls, parts: Sequence[Step]) -> Step:
        """A step as all processes saw it: each divides its loss by the mean count, so the step's loss is their mean."""
        total = {name: sum(getattr(p, name) for p in parts) for name in ("tokens", "sequences", "entropy", "kl")}
        return replace(
            parts[0], **total, loss=statistics.fmean(p.loss for p in parts),
            by_sequence=any(p.by_sequence for p in parts), low=sum(p.low for p in parts), high=sum(p.high for p in parts),
            lowest=min((p.lowest for p in parts if p.lowest is not None), default=None),
            highest=max((p.highest for p in parts if p.highest is not None), default=None),
        )  # fmt: skip


class UpdateFigures:
    """Figures of the optimizer steps of one update, as TRL has them for each of its steps.

    Means count every token of a step once, however it was parted; clip ratios at sequence level count sequences. A step
    weighs as much as it has tokens (sequences).
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)
        self._parts: list[tuple[Objective, Scored]] = []

    def add(self, result: Objective, part: Scored) -> None:
        """One part of a minibatch."""
        self._parts.append((result, part))

    def add_step(self, norm: Tensor, masked: int = 0) -> None:
        """An optimizer step follows on the parts given so far.

        Args:
            norm: of the gradient, before it was clipped.
            masked: sequences of the minibatch that were left out as truncated.
        """
        results = [result for result, _ in self._parts]
        real = [part.completion for _, part in self._parts]
        low = _clipped_shares([result.clipped_low for result in results], real)
        high = _clipped_shares([result.clipped_high for result in results], real)
        self.steps.append(Step(
            loss=sum(float(result.loss.detach()) for result in results),
            norm=float(norm),
            tokens=sum(int(mask.sum()) for mask in real),
            sequences=len(low),
            masked=masked,
            by_sequence=any(result.clipped_low.shape[1] == 1 for result in results),
            entropy=sum(float(part.entropy.sum()) for _, part in self._parts),
            kl=sum(float(r.kl[mask].sum()) for r, mask in zip(results, real, strict=True) if r.kl is not None),
            low=sum(int(result.clipped_low.sum()) for result in results),
            high=sum(int(result.clipped_high.sum()) for result in results),
            lowest=min(low, default=None),
            highest=max(high, default=None),
        ))  # fmt: skip
        self._parts = []

    def of_everyone(self) -> UpdateFigures:
        """The figures of all processes' parts. All must call it, after equally many steps."""
        return UpdateFigures([Step.merged(parts) for parts in zip(*everyone(self.steps), strict=True)])

    def means(self) -> dict[str, float]:
        """Of the whole update; a ratio without anything to count is 0."""
        steps = self.steps
        tokens, counted = (max(sum(n), 1) for n in ([s.tokens for s in steps], [s.counted for s in steps]))
        low, high = sum(s.low for s in steps) / counted, sum(s.high for s in steps) / counted
        # no truncated completion is clipped, so the least clipped sequence may be one of them
        lowest = [0.0 if s.by_sequence and s.masked else s.lowest for s in steps if s.lowest is not None]
        return {
            "loss": statistics.fmean(s.loss for s in steps),
            "grad_norm": statistics.fmean(s.norm for s in steps),
            "entropy": sum(s.entropy for s in steps) / tokens,
            "kl": sum(s.kl for s in steps) / tokens,
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,
            "clip_ratio/low_min": statistics.fmean(lowest or [0.0]),
            "clip_ratio/high_max": statistics.fmean([s.highest for s in steps if s.highest is not None] or [0.0]),
        }


def _clipped_shares(clipped: Sequence[Tensor], real: Sequence[Tensor]) -> list[float]:
    """The clipped share of each completion, of those with tokens that count."""
    shares: list[float] = []
    for mask, tokens in zip(clipped, real, strict=True):
        counts = tokens.sum(1)
        share = mask[:, 0].float() if mask.shape[1] == 1 else mask.sum(1) / counts
        shares += share[counts > 0].tolist()
    return shares
