"""majority@k: how often the most frequent of k sampled answers is right, from n >= k samples."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import comb

import torch
from torch import Tensor

from atmanrl.metrics.at_k import MeanAtK
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem, Task

RIGHT, NO_VOTE = 0, -1
"""Classes of `answer_classes`: the right answer, and samples without an answer that the task can read."""


@cache
def majority_at_k(right: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """Return the expected vote of k samples that are drawn from n = right + sum(others) + silent ones without repetition.

    A vote is won by the answer with the most samples. Where several answers have as many, the right one, if it is among
    them, gets its part of the credit, 1 / (number of answers that are level): what drawing lots among them gives on
    average, without the noise of a draw. Samples without an answer do not vote, and a vote without answers is lost.

    Args:
        right: samples with the right answer.
        others: samples of each wrong answer.
        silent: samples that have no answer.
        k: samples that vote, 1 <= k <= n.

    Returns:
        A probability, 0 to 1. For k = 1 it is pass@1; it can never exceed pass@k.

    Raises:
        ValueError: k or a count out of its range.
    """
    n = right + sum(others) + silent
    if min(right, silent, *others) < 0:
        raise ValueError("counts of samples must not be negative")
    if not 1 <= k <= n:
        raise ValueError(f"majority@{k} needs at least {k} samples a problem and k >= 1; there are {n} samples")
    won = 0.0
    for votes in range(1, min(right, k) + 1):
        # ways[samples, level]: how many subsets of the wrong answers leave none above `votes`, and `level` of them at it
        ways = Counter({(0, 0): 1})
        for size in others:
            ways = _with_answer(ways, size, votes)
        for (wrong, level), count in ways.items():
            rest = k - votes - wrong
            if rest >= 0:
                won += comb(right, votes) * count * comb(silent, rest) / (1 + level)
    return won / comb(n, k)


def _with_answer(ways: Counter[tuple[int, int]], size: int, votes: int) -> Counter[tuple[int, int]]:
    """`ways` with one more wrong answer, which has `size` samples."""
    longer: Counter[tuple[int, int]] = Counter()
    for (wrong, level), count in ways.items():
        for chosen in range(min(size, votes) + 1):
            longer[wrong + chosen, level + (chosen == votes)] += count * comb(size, chosen)
    return longer


def answer_classes(task: Task, problem: Problem, answers: Sequence[str | None]) -> list[int]:
    """Sort a problem's sampled answers into classes of equal ones, by the task's own equality.

    Two answers are the same when the task would take one for right if the other were the gold answer: "$1,000" is
    "1000.0" to GSM8K, "(b)" is "B" to MMLU. An answer that the task does not even find equal to itself is one that it
    cannot read. A task that looks up the gold answer elsewhere than in `problem.gold`, or cannot take another one,
    has its wrong answers compared as texts.

    Args:
        task: the judge.
        problem: what was asked.
        answers: the texts that followed the delimiter; None where there was none.

    Returns:
        A class for each answer: 0 (`RIGHT`) for those that are right, 1 and up for wrong ones in order of appearance,
        -1 (`NO_VOTE`) for none.
    """
    classes: list[int] = []
    firsts: list[str] = []  # the first answer of each wrong class
    for answer in answers:
        if answer is None:
            classes.append(NO_VOTE)
        elif task.is_right(answer, problem):
            classes.append(RIGHT)
        elif not _same(task, problem, answer, answer):
            classes.append(NO_VOTE)
        else:
            known = next((i for i, first in enumerate(firsts, 1) if _same(task, problem, answer, first)), None)
            if known is None:
                firsts.append(answer)
            classes.append(known or len(firsts))
    return classes


def _same(task: Task, problem: Problem, answer: str, other: str) -> bool:
    """Whether a task takes two wrong answers for one."""
    as_gold = replace(problem, gold=other)
    try:
        # where the old gold answer is right still, or never was, the task does not look at the problem's
        if task.is_right(problem.gold, problem) and not task.is_right(problem.gold, as_gold):
            return task.is_right(answer, as_gold)
    except (
        Exception
    ) as error:  # a user's task may be picky about its gold answers; a metric must not end the evaluation
        warnings.warn(
            f"{type(task).__name__}.is_right raised {type(error).__name__} ({error}) with {other!r} as the gold answer of "
            f"problem {problem.id}: its wrong answers are compared as texts for majority@k.",
            stacklevel=2,
        )
    return answer.strip() == other.strip()


class MajorityAtK(MeanAtK):
    """majority@k averaged over problems, for several k at once (see `MeanAtK`): all samples vote by default."""

    name = "majority"

    @staticmethod
    def default_ks(samples: int) -> tuple[int, ...]:
        """Return the number of samples."""
        return (samples,)

    def values(self, batch: RolloutBatch) -> Tensor:
        """Count the votes on each problem; the task that `prepare` was given says which answers are the same.

        Raises:
            ValueError: there are fewer samples than the largest k, or there is no task.
        """
        if self.task is None:
            raise ValueError("majority@k needs a task that compares answers: call prepare(task, samples) first")
        values = []
        for group in batch.groups:
            counts = Counter(answer_classes(self.task, group[0].problem, [r.parts.answer for r in group]))
            right, silent = counts.pop(RIGHT, 0), counts.pop(NO_VOTE, 0)
            others = tuple(sorted(counts.values()))
            values.append([majority_at_k(right, others, silent, k) for k in self.ks])
        return torch.tensor(values).view(-1, len(self.ks))
