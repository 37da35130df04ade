"""`Rollout` and `RolloutBatch`: what both LightningModules are fed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from atmanrl.rollouts.sampler import Completion
from atmanrl.rollouts.split import Parts
from atmanrl.tasks import Problem


@dataclass
class Rollout:
    """One completion of one problem.

    Attributes:
        problem: what was asked.
        row: the problem's row in the dataset.
        sample: which of the group's rollouts this is, from 0.
        prompt: the user's turn, as text.
        prompt_ids: its tokens, chat template included.
        completion: tokens and log-probabilities (empty for traces that were read from a file).
        parts: the completion split at the delimiter.
        correct: whether the answer is right, once a task has judged it.
        rewards: the rewards by name, once they are known; NaN where one abstained.
        saliency: one value for each token of the reasoning, once it is known.
        readable: whether the task could read the answer at all, once it has judged it.
        notes: what rewards note about it, by name, for the table of rollouts.
        gradients: how many its probe took, 0 without one.
        check: the saliency reward by the reference solver and by the probe's own, where the two were compared.
        token_values: what rewards give to single tokens, by the reward's name: one number for each token of the
            completion or of its beginning.
        metrics: what it adds to each metric of an evaluation, a numerator and a denominator by key; what the samples of a
            problem add together stands at the first of them.

    Example:
        `Rollout(Problem("gsm8k/train/17", "How many ...?", "72"), row=17, sample=0, prompt="How many ...?",
        prompt_ids=[1, 318], completion=Completion([88, 2], [-0.3, -0.1], True), parts=Parts("...", "...", "72", 1))`
    """

    problem: Problem
    row: int
    sample: int
    prompt: str
    prompt_ids: list[int]
    completion: Completion
    parts: Parts
    correct: bool | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    saliency: list[float] | None = None
    readable: bool | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    gradients: int = 0
    check: tuple[float, float] | None = None
    token_values: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to(self, *args: Any, **kwargs: Any) -> Rollout:
        """Stay where it is: Lightning moves predictions to the CPU, and nothing of a rollout lives on a device."""
        return self

    @property
    def cot_ids(self) -> list[int]:
        """Tokens that lie wholly before the delimiter."""
        return self.completion.ids[: self.parts.cot_length]

    @property
    def can_be_probed(self) -> bool:
        """Whether there is a reasoning before a delimiter, and a gold answer that it may matter to."""
        return self.parts.has_reasoning and bool(self.problem.gold.strip())


@dataclass
class Sequences:
    """Prompt and completion of B rollouts, right-padded to S tokens.

    Attributes:
        input_ids, attention_mask: `[B, S]`.
        before: `[B, S]` boolean, true where the next token belongs to the completion: where logits are needed.
        completion: `[B, C]` boolean, true at tokens of the completion.
        tokens: `[K]` the completion tokens in row-major order.
        logprobs: `[B, C]` as they were sampled, 0 on padding.

    Example:
        Of a prompt of 2 tokens and a completion of 1, `before` is `[[False, True, False]]` and `completion` `[[True]]`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    before: Tensor
    completion: Tensor
    tokens: Tensor
    logprobs: Tensor


@dataclass
class RolloutBatch:
    """Rollouts in whole groups: `rollouts[q * group_size : (q + 1) * group_size]` answer the same problem.

    Attributes:
        rollouts: Q x G of them.
        group_size: G.
        seconds: how long sampling took.
        update: number of the update that they are sampled for, from 0; 0 in evaluation.
        updates: how many there will be, or -1 where that is open.
        metrics: what sampling wants logged, by full name.
        seed: of the run's data, from which whatever is drawn for an update follows.
        places: for each problem that this process answers in an update, its dataset row and its place among all the
            update's problems, over all processes; empty outside of training.

    Example:
        `RolloutBatch(rollouts, group_size=8)` of 32 rollouts holds 4 groups.
    """

    rollouts: list[Rollout]
    group_size: int
    seconds: float = 0.0
    update: int = 0
    updates: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rollouts)

    @property
    def groups(self) -> list[list[Rollout]]:
        """The rollouts of each problem."""
        return [self.rollouts[i : i + self.group_size] for i in range(0, len(self), self.group_size)]

    def to(self, *args: Any, **kwargs: Any) -> RolloutBatch:
        """Stay where it is: tensors are built on the device when they are needed."""
        return self

    def part(self, indices: Sequence[int]) -> RolloutBatch:
        """Return a batch of the rollouts with these numbers, as groups of one."""
        return replace(self, rollouts=[self.rollouts[i] for i in indices], group_size=1)

    def sequences(self, indices: Sequence[int], pad_id: int, device: torch.device) -> Sequences:
        """Return the rollouts with these numbers as padded tensors on a device."""
        rows = [self.rollouts[i] for i in indices]
        size = len(rows)
        whole = max(len(r.prompt_ids) + len(r.completion.ids) for r in rows)
        longest = max(len(r.completion.ids) for r in rows)
        ids = torch.full((size, whole), pad_id, dtype=torch.long)
        mask = torch.zeros(size, whole, dtype=torch.long)
        before = torch.zeros(size, whole, dtype=torch.bool)
        completion = torch.zeros(size, longest, dtype=torch.bool)
        logprobs = torch.zeros(size, longest)
        for i, r in enumerate(rows):
            p, c = len(r.prompt_ids), len(r.completion.ids)
            ids[i, : p + c] = torch.tensor(r.prompt_ids + r.completion.ids)
            mask[i, : p + c] = 1
            before[i, p - 1 : p + c - 1] = True
            completion[i, :c] = True
            logprobs[i, :c] = torch.tensor(r.completion.logprobs)
        tokens = torch.cat([torch.tensor(r.completion.ids) for r in rows])
        return Sequences(*(t.to(device) for t in (ids, mask, before, completion, tokens, logprobs)))
