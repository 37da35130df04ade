"""`Experience`: all that one update learns from, the same on every process, put together once and never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from atmanrl.distributed import all_gather, processes
from atmanrl.grpo.processes import weighted_means
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import Rollout, RolloutBatch


@dataclass(frozen=True)
class Experience:
    """N rollouts in full groups, what they are worth, and their log-probabilities before the update.

    Attributes:
        batch: the rollouts of all processes, in order of rank.
        own: which of them this process has sampled.
        scores: their rewards.
        advantages: `[N]` one for each rollout, or a list of N tensors `[C]` with one for each token of its completion.
        old_logprobs: for each rollout `[C]`, under the policy that sampled it.
        reference_logprobs: for each rollout `[C]`, under the policy that the run started from; None without a reference.
        learning_groups: numbers of the groups that the update learns from.
        tokens: how many the prompts and completions have together.

    Example:
        One group of two rollouts, of which the first is right, sampled by one process:
        `Experience(batch, slice(0, 2), scores, advantages=tensor([0.5, -0.5]), old_logprobs=[tensor([-0.1, -0.7]),
        tensor([-2.3])], reference_logprobs=None, learning_groups=[0], tokens=95)`
    """

    batch: RolloutBatch
    own: slice
    scores: Scores
    advantages: Tensor | Sequence[Tensor]
    old_logprobs: Sequence[Tensor]
    reference_logprobs: Sequence[Tensor] | None
    learning_groups: Sequence[int]
    tokens: int

    @property
    def rollouts(self) -> list[Rollout]:
        """The rollouts of all processes."""
        return self.batch.rollouts


def experience_of(outputs: Any) -> Experience | None:
    """Return the experience in a callback's `outputs` of a training step; None where it was no update of GRPO."""
    return outputs.get("experience") if isinstance(outputs, Mapping) else None


def exchange(
    batch: RolloutBatch,
    scores: Scores,
    old_logprobs: list[Tensor],
    reference_logprobs: list[Tensor] | None,
    advantages: Callable[[Tensor, int], tuple[Tensor, list[int]]],
) -> Experience:
    """Bring all processes' rollouts together, in order of rank. All processes must call it.

    Args:
        batch: this process's rollouts, which stay as they are.
        scores: their rewards.
        old_logprobs: under the policy that sampled them.
        reference_logprobs: under the reference policy, or None on every process.
        advantages: gives, from total rewards `[N]` and the size of a group, advantages and the groups to learn from.

    Returns:
        The update's experience. Metrics of sampling are means over the processes, and those of rewards over the processes
        that have them.
    """
    own = slice(0, len(batch))
    parts = all_gather((batch.rollouts, scores, old_logprobs, reference_logprobs or [], batch.seconds, batch.metrics))
    if len(parts) > 1:
        rollouts, all_scores, olds, references, seconds, metrics = (list(part) for part in zip(*parts, strict=True))
        before = sum(map(len, rollouts[: processes().rank]))
        own = slice(before, before + len(batch))
        batch = replace(
            batch, rollouts=list(chain.from_iterable(rollouts)), seconds=max(seconds),
            metrics=weighted_means((each, 1) for each in metrics),
        )  # fmt: skip
        scores = Scores(
            {name: torch.cat([each.values[name] for each in all_scores]) for name in scores.values},
            torch.cat([each.total for each in all_scores]),
            weighted_means((each.metrics, 1) for each in all_scores),
        )
        old_logprobs = list(chain.from_iterable(olds))
        reference_logprobs = None if reference_logprobs is None else list(chain.from_iterable(references))
    values, learning_groups = advantages(scores.total, batch.group_size)
    tokens = sum(len(r.prompt_ids) + len(r.completion.ids) for r in batch.rollouts)
    return Experience(batch, own, scores, values, old_logprobs, reference_logprobs, learning_groups, tokens)
