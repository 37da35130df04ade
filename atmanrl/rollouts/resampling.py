"""Dynamic sampling (DAPO, arXiv 2503.14476): groups without spread make way for groups of other problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem

ProblemRow = tuple[int, Problem]
"""A problem behind its row in the dataset."""


def zero_spread(batch: RolloutBatch) -> list[int]:
    """Return the numbers of the groups whose answers are all right or all wrong."""
    size = batch.group_size
    counts = [sum(bool(r.correct) for r in batch.rollouts[q : q + size]) for q in range(0, len(batch), size)]
    return [q for q, count in enumerate(counts) if count in (0, size)]


def reserves(rows: Sequence[ProblemRow], asked: Sequence[int], key: str) -> list[list[ProblemRow]]:
    """Return, for each group of an update, the problems that may take its place, in this order.

    They depend on what the whole update asks and on the key, so they are the same on any number of processes, and no
    problem stands ready for two groups.

    Args:
        rows: all training problems with their rows.
        asked: rows of the problems of the update's groups, on all processes.
        key: of the random draw; names the run's seed and the update.
    """
    taken = set(asked)
    free = [row for row in rows if row[0] not in taken]
    Random(key).shuffle(free)
    return [free[group :: len(asked)] for group in range(len(asked))]


def resample(
    batch: RolloutBatch,
    spare: Sequence[Sequence[ProblemRow]],
    answer: Callable[[Sequence[ProblemRow]], RolloutBatch],
    rounds: int,
) -> RolloutBatch:
    """Put groups of other problems in the place of groups without spread.

    The epoch's order goes on as if they had not been asked. What is without spread after the last round, or when its
    reserve is used up, stays.

    Args:
        batch: rollouts, judged.
        spare: for each group, the problems that may take its place (see `reserves`).
        answer: samples groups of the same size.
        rounds: most times that a group is replaced.

    Returns:
        A batch of as many groups in the same places. Its metrics say how many groups were sampled in addition, as a
        share of its groups (`resampled/groups`), and the share of groups without spread that are left
        (`resampled/left`).
    """
    size, count = batch.group_size, len(batch) // batch.group_size
    rollouts, seconds, extra = list(batch.rollouts), batch.seconds, 0
    for turn in range(rounds):
        places = [q for q in zero_spread(replace(batch, rollouts=rollouts)) if turn < len(spare[q])]
        if not places:
            break
        answered = answer([spare[q][turn] for q in places])
        seconds, extra = seconds + answered.seconds, extra + len(places)
        for i, q in enumerate(places):
            rollouts[q * size : (q + 1) * size] = answered.rollouts[i * size : (i + 1) * size]
    left = len(zero_spread(replace(batch, rollouts=rollouts)))
    metrics = {"resampled/groups": extra / count, "resampled/left": left / count}
    return replace(batch, rollouts=rollouts, seconds=seconds, metrics=batch.metrics | metrics)
