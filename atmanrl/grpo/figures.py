"""What an update logs, under the names that TRL's users know."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from atmanrl.grpo.objective import Objective
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import RolloutBatch


def rollout_figures(batch: RolloutBatch, scores: Scores, scaling: str) -> dict[str, float]:
    """Rewards, their spread within groups, lengths and accuracy of one update's rollouts."""
    groups = scores.total.view(-1, batch.group_size)
    within = groups.std(1)
    lengths = [len(r.completion.ids) for r in batch.rollouts]
    cots = [r.parts.cot_length for r in batch.rollouts]
    figures = {
        "reward": float(groups.mean()),
        "reward_std": float(within.mean() if scaling != "batch" else scores.total.std()),
        "frac_reward_zero_std": float((within < 1e-6).float().mean()),
        "accuracy": sum(bool(r.right) for r in batch.rollouts) / len(batch),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": sum(not r.completion.finished for r in batch.rollouts) / len(batch),
        "cot/mean_length": statistics.fmean(cots),
    }
    for name, values in scores.values.items():
        figures[f"rewards/{name}/mean"] = float(values.nanmean())
        figures[f"rewards/{name}/std"] = float(values[~values.isnan()].std()) if (~values.isnan()).sum() > 1 else 0.0
        figures[f"rewards/{name}/group_std"] = _group_spread(values, batch.group_size)
        figures[f"rewards/{name}/abstained"] = float(values.isnan().float().mean())
    return figures


def _group_spread(values: Tensor, group_size: int) -> float:
    """Mean over groups of the standard deviation of the valid values: what a reward really contributes to advantages."""
    spreads = [float(g[~g.isnan()].std()) for g in values.view(-1, group_size) if (~g.isnan()).sum() > 1]
    return statistics.fmean(spreads) if spreads else 0.0


class UpdateFigures:
    """Figures of the optimizer steps of one update."""

    def __init__(self) -> None:
        self.losses: list[float] = [0.0]
        self.norms: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.entropies: list[float] = []
        self.tokens: list[int] = []

    def add(self, result: Objective, completion: Tensor, entropy: Tensor) -> None:
        """Figures of one part of a minibatch."""
        tokens = int(completion.sum())
        self.losses[-1] += float(result.loss.detach())
        self.low.append(int(result.clipped_low.sum()) / tokens)
        self.high.append(int(result.clipped_high.sum()) / tokens)
        self.entropies.append(float(entropy))
        self.tokens.append(tokens)

    def add_step(self, norm: Tensor) -> None:
        """An optimizer step follows."""
        self.norms.append(float(torch.as_tensor(norm)))
        self.losses.append(0.0)

    @classmethod
    def merged(cls, parts: Sequence[UpdateFigures]) -> UpdateFigures:
        """Figures of all processes: each divides its losses by the mean count, so the step's loss is their mean."""
        whole = cls()
        whole.losses = [statistics.fmean(step) for step in zip(*(p.losses for p in parts), strict=True)]
        whole.norms = parts[0].norms
        for name in ("low", "high", "entropies", "tokens"):
            setattr(whole, name, [value for part in parts for value in getattr(part, name)])
        return whole

    def means(self) -> dict[str, float]:
        """Means over the update's steps, and over its tokens, however they were parted."""
        low, high = (statistics.fmean(values, self.tokens) for values in (self.low, self.high))
        return {
            "loss": statistics.fmean(self.losses[:-1]),
            "grad_norm": statistics.fmean(self.norms),
            "entropy": statistics.fmean(self.entropies, self.tokens),
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,
        }
