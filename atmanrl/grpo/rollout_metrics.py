"""What an update logs of its rollouts, under the names that TRL's users know. `docs/metrics.md` explains each of them."""

from __future__ import annotations

import statistics

from torch import Tensor

from atmanrl.grpo.advantages import GroupAdvantages, is_flat
from atmanrl.grpo.experience import Experience


def rollout_metrics(experience: Experience, advantages: GroupAdvantages) -> dict[str, float]:
    """Return rewards, their spread, lengths and accuracy of one update's rollouts.

    Args:
        experience: of the update.
        advantages: what the rewards were turned into advantages by.
    """
    batch, scores = experience.batch, experience.scores
    groups = scores.total.view(-1, batch.group_size)
    flat = [is_flat(scores.total if advantages.scaling == "batch" else group) for group in groups]
    lengths = [len(r.completion.ids) for r in batch.rollouts]
    ended = [len(r.completion.ids) for r in batch.rollouts if r.completion.finished] or [0]
    metrics = {
        "reward": float(groups.mean()),
        "reward_std": float(scores.total.std()),
        "reward_group_std": float(groups.std(1).mean()),
        "frac_reward_zero_std": statistics.fmean(flat),
        "accuracy": sum(bool(r.correct) for r in batch.rollouts) / len(batch),
        "completions/clipped_ratio": sum(not r.completion.finished for r in batch.rollouts) / len(batch),
        "cot/mean_length": statistics.fmean(r.parts.cot_length for r in batch.rollouts),
    }
    for kind, each in (("", lengths), ("terminated_", ended)):
        metrics[f"completions/mean_{kind}length"] = statistics.fmean(each)
        metrics[f"completions/min_{kind}length"] = float(min(each))
        metrics[f"completions/max_{kind}length"] = float(max(each))
    for name, values in scores.values.items():
        metrics[f"rewards/{name}/mean"] = float(values.nanmean())
        metrics[f"rewards/{name}/std"] = float(values[~values.isnan()].std()) if (~values.isnan()).sum() > 1 else 0.0
        metrics[f"rewards/{name}/group_std"] = _group_spread(values, batch.group_size)
        metrics[f"rewards/{name}/abstained"] = float(values.isnan().float().mean())
    if advantages.zero_spread == "drop":
        metrics["groups_dropped"] = 1 - len(experience.learning_groups) * batch.group_size / len(batch)
    return metrics


def _group_spread(values: Tensor, group_size: int) -> float:
    """Return the mean over groups of the valid values' standard deviation: what a reward contributes to advantages."""
    spreads = [float(g[~g.isnan()].std()) for g in values.view(-1, group_size) if (~g.isnan()).sum() > 1]
    return statistics.fmean(spreads) if spreads else 0.0
