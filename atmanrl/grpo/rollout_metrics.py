"""What an update logs of its rollouts, under the names that TRL's users know. `docs/metrics.md` explains each of them."""

from __future__ import annotations

import statistics

from torch import Tensor

from atmanrl.grpo.advantages import Scaling, is_flat
from atmanrl.grpo.experience import Experience


def rollout_metrics(experience: Experience, scaling: Scaling) -> dict[str, float]:
    """Rewards, their spread, lengths and accuracy of one update's rollouts."""
    batch, scores = experience.batch, experience.scores
    groups = scores.total.view(-1, batch.group_size)
    flat = [is_flat(scores.total if scaling == "batch" else group) for group in groups]
    lengths = [len(r.completion.ids) for r in batch.rollouts]
    ended = [len(r.completion.ids) for r in batch.rollouts if r.completion.finished] or [0]
    figures = {
        "reward": float(groups.mean()),
        "reward_std": float(scores.total.std()),
        "reward_group_std": float(groups.std(1).mean()),
        "frac_reward_zero_std": statistics.fmean(flat),
        "accuracy": sum(bool(r.correct) for r in batch.rollouts) / len(batch),
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
