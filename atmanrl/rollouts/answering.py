"""Problems as a loader hands them over, and the rollouts that answer them: sampled, split and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout, RolloutBatch
from atmanrl.rollouts.resampling import ProblemRow
from atmanrl.rollouts.sampler import Sampler, SamplingOptions
from atmanrl.rollouts.split import Splitter
from atmanrl.tasks import Task


class ProblemBatch(list[ProblemRow]):
    """Problems with their rows, before they are answered.

    Example:
        `ProblemBatch([(17, Problem("gsm8k/train/17", "How many ...?", "72"))])`
    """

    def to(self, *args: Any, **kwargs: Any) -> ProblemBatch:
        """Stay where it is: nothing of it lives on a device."""
        return self


class TraceBatch(list[tuple[str, int, dict[str, Any]]]):
    """Stored traces (where they stand, row, object), before they are tokenized.

    Example:
        `TraceBatch([("traces.jsonl, line 3", 2, {"prompt": "1 + 1?", "gold": "2", "cot": "1 + 1 = 2"})])`
    """

    def to(self, *args: Any, **kwargs: Any) -> TraceBatch:
        """Stay where it is: nothing of it lives on a device."""
        return self


def answer(
    policy: Policy, problems: Sequence[ProblemRow], task: Task, splitter: Splitter, sampler: Sampler,
    options: SamplingOptions, uniforms: Tensor,
) -> RolloutBatch:  # fmt: skip
    """Sample G rollouts of each of Q problems, split them, and judge the answers.

    Args:
        policy: built.
        problems: with their rows in the dataset.
        task: makes the prompts and judges the answers.
        splitter: tells reasoning and answer apart.
        sampler: completes the prompts.
        options: how tokens are drawn.
        uniforms: `[Q, G, T]`, a random number for each token (see `seeds`).
    """
    began = time.perf_counter()
    prompts = [task.prompt(problem) for _, problem in problems]
    prompt_ids = [policy.encode_prompt(prompt) for prompt in prompts]
    completions = sampler.sample(policy, prompt_ids, uniforms, options)
    rollouts = []
    for (row, problem), prompt, ids, group in zip(problems, prompts, prompt_ids, completions, strict=True):
        for s, completion in enumerate(group):
            parts = splitter.split(policy.tokenizer, completion.ids)
            correct = parts.answer is not None and task.is_right(parts.answer, problem)
            readable = correct or (parts.answer is not None and task.can_read(parts.answer, problem))
            rollouts.append(Rollout(problem, row, s, prompt, ids, completion, parts, correct, readable=readable))
    return RolloutBatch(rollouts, uniforms.shape[1], time.perf_counter() - began)
