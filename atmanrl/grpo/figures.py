"""What an update logs, under the names that TRL's users know. `docs/metrics.md` explains each of them."""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

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


class UpdateFigures:
    """Figures of the optimizer steps of one update, as TRL has them for each of its steps.

    Means count every token of a step once, however it was parted; clip ratios at sequence level count sequences. A step
    weighs as much as it has tokens (sequences).
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.sums: dict[str, list[float]] = {
            "tokens": [],
            "counted": [],
            "entropy": [],
            "kl": [],
            "low": [],
            "high": [],
        }
        self.lowest: list[float] = []
        self.highest: list[float] = []
        self._parts: list[tuple[Objective, Scored]] = []

    def add(self, result: Objective, part: Scored) -> None:
        """One part of a minibatch."""
        self._parts.append((result, part))

    def add_step(self, norm: Tensor, masked: int = 0) -> None:
        """An optimizer step follows on the parts given so far.

        Args:
            norm: of the gradient, before it was clipped.
            masked: sequences of the minibatch that were left out as truncated; none of them is clipped.
        """
        self.norms.append(float(norm))
        self.losses.append(sum(float(result.loss.detach()) for result, _ in self._parts))
        real = [part.completion for _, part in self._parts]
        by_sequence = any(result.clipped_low.shape[1] == 1 for result, _ in self._parts)
        sequences = sum(map(len, real)) + masked
        tokens = sum(int(mask.sum()) for mask in real)
        low = self._clipped([result.clipped_low for result, _ in self._parts], real)
        high = self._clipped([result.clipped_high for result, _ in self._parts], real)
        counted = {
            "tokens": tokens, "counted": sequences if by_sequence else tokens, "low": low[0], "high": high[0],
            "entropy": sum(float(part.entropy.sum()) for _, part in self._parts),
            "kl": sum(float(result.kl[mask].sum()) for (result, _), mask in zip(self._parts, real, strict=True)
                      if result.kl is not None),
        }  # fmt: skip
        for name, value in counted.items():
            self.sums[name].append(value)
        if self._parts:
            self.lowest.append(0.0 if by_sequence and masked else float(low[1].min()))
            self.highest.append(float(high[1].max()))
        self._parts = []

    def means(self) -> dict[str, float]:
        """Of the whole update; a ratio without anything to count is 0."""
        total = {name: sum(values) for name, values in self.sums.items()}
        low, high = (total[name] / max(total["counted"], 1) for name in ("low", "high"))
        return {
            "loss": statistics.fmean(self.losses),
            "grad_norm": statistics.fmean(self.norms),
            "entropy": total["entropy"] / max(total["tokens"], 1),
            "kl": total["kl"] / max(total["tokens"], 1),
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,
            "clip_ratio/low_min": statistics.fmean(self.lowest or [0.0]),
            "clip_ratio/high_max": statistics.fmean(self.highest or [0.0]),
        }

    @staticmethod
    def _clipped(masks: list[Tensor], real: list[Tensor]) -> tuple[float, Tensor]:
        """How many are clipped, and the share within each sequence."""
        if not masks:
            return 0.0, torch.zeros(0)
        shares = [
            mask[:, 0].float() if mask.shape[1] == 1 else mask.sum(1) / tokens.sum(1)
            for mask, tokens in zip(masks, real, strict=True)
        ]
        return float(sum(int(mask.sum()) for mask in masks)), torch.cat(shares)
