"""Judged rollouts for the tests of metrics, without a model."""

from types import SimpleNamespace

from atmanrl.rollouts import RolloutBatch
from atmanrl.tasks import Problem


def rollout(problem="a", answer=None, correct=False, cot="", length=0, finished=True, gold="72"):
    return SimpleNamespace(
        problem=Problem(problem, "?", gold), correct=correct,
        parts=SimpleNamespace(answer=answer, cot=cot, cot_length=length),
        completion=SimpleNamespace(finished=finished), metrics={},
    )  # fmt: skip


def judged(*groups):
    """A problem for each group of samples, which are right or not."""
    rollouts = [rollout(str(q), correct=bool(right)) for q, group in enumerate(groups) for right in group]
    return RolloutBatch(rollouts, len(groups[0]))


def answered(*groups):
    """A problem for each group of answers; the gold answer is 72."""
    rollouts = [rollout(str(q), answer, answer == "72") for q, group in enumerate(groups) for answer in group]
    return RolloutBatch(rollouts, len(groups[0]))


def reasoned(*texts):
    """A rollout for each reasoning."""
    return RolloutBatch([rollout(cot=text, length=len(text.split())) for text in texts], 1)
