"""`Experience`: all that one update learns from, the same on every process, made once and never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atmanrl.distributed import all_gather, processes
from atmanrl.grpo.loss import LossInputs, MinibatchCounts
from atmanrl.grpo.processes import weighted_means
from atmanrl.grpo.scoring import Scored
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import Rollout, RolloutBatch


@dataclass(frozen=True)
class Experience:
    """N rollouts in whole groups, what they are worth, and their log-probabilities before the update.

    Attributes:
        batch: the rollouts of all processes, in order of rank.
        own: which of them this process has sampled.
        scores: their rewards.
        advantages: `[N]` one for each rollout, or a list of N tensors `[C]` with one for each token of its completion.
        old_logprobs: for each rollout `[C]`, under the policy that sampled it.
        reference_logprobs: for each rollout `[C]`, under the policy that the run started from; None without a reference.
        learning_groups: numbers of the groups that the update learns from.
        tokens: how many the prompts and completions have together.
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
        """Those of all processes."""
        return self.batch.rollouts

    def inputs(self, part: Scored, counts: MinibatchCounts) -> LossInputs:
        """What a loss is given of some rollouts that the policy has just scored, on its device."""
        rows, device, advantages = part.rows, part.logprobs.device, self.advantages
        if isinstance(advantages, Tensor):
            advantages = advantages[rows].to(device)
        else:
            advantages = _padded(advantages, rows, device)
        return LossInputs(
            logprobs=part.logprobs,
            old_logprobs=_padded(self.old_logprobs, rows, device),
            reference_logprobs=None
            if self.reference_logprobs is None
            else _padded(self.reference_logprobs, rows, device),
            advantages=advantages,
            completion_mask=part.completion,
            entropy=part.entropy,
            counts=counts,
        )


def experience_of(outputs: Any) -> Experience | None:
    """The experience in what a training step returned (a callback's `outputs`); None where it was no update of GRPO."""
    return outputs.get("experience") if isinstance(outputs, Mapping) else None


def exchange(
    batch: RolloutBatch,
    scores: Scores,
    old_logprobs: list[Tensor],
    reference_logprobs: list[Tensor] | None,
    advantages: Callable[[Tensor, int], Tensor],
    choose: Callable[[Tensor, int], list[int]],
) -> Experience:
    """Bring all processes' rollouts together, in order of rank. All processes must call it.

    Args:
        batch: this process's rollouts, which stay as they are.
        scores: their rewards.
        old_logprobs: under the policy that sampled them.
        reference_logprobs: under the reference policy, or None on every process.
        advantages: advantages from total rewards `[N]` and the size of a group.
        choose: the groups to learn from, by the same.

    Returns:
        The update's experience. Metrics of sampling are means over the processes, and those of rewards over the processes
        that have them.
    """
    parts = all_gather((batch.rollouts, scores, old_logprobs, reference_logprobs or [], batch.seconds, batch.metrics))
    own = slice(0, len(batch))
    if len(parts) > 1:
        rollouts, each, olds, references, seconds, figures = (list(part) for part in zip(*parts, strict=True))
        before = sum(map(len, rollouts[: processes().rank]))
        own = slice(before, before + len(batch))
        batch = replace(
            batch, rollouts=list(chain.from_iterable(rollouts)), seconds=max(seconds),
            metrics=weighted_means((theirs, 1) for theirs in figures),
        )  # fmt: skip
        scores = Scores(
            {name: torch.cat([theirs.values[name] for theirs in each]) for name in scores.values},
            torch.cat([theirs.total for theirs in each]),
            weighted_means((theirs.metrics, 1) for theirs in each),
        )
        old_logprobs = list(chain.from_iterable(olds))
        reference_logprobs = None if reference_logprobs is None else list(chain.from_iterable(references))
    return Experience(
        batch, own, scores, advantages(scores.total, batch.group_size), old_logprobs, reference_logprobs,
        choose(scores.total, batch.group_size), sum(len(r.prompt_ids) + len(r.completion.ids) for r in batch.rollouts),
    )  # fmt: skip


def _padded(values: Sequence[Tensor], rows: Sequence[int], device: torch.device) -> Tensor:
    """`[B, C]` of some rollouts' values, 0 on padding."""
    return pad_sequence([values[i] for i in rows], batch_first=True).to(device)
