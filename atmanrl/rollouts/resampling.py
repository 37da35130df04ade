"""Dynamic sampling (DAPO, arXiv 2503.14476): groups without spread make way for groups of other problems."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from random import Random

from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem

Row = tuple[int, Problem]


def zero_spread(batch: RolloutBatch) -> list[int]:
    """Numbers of the groups whose answers are all right or all wrong."""
    size = batch.group_size
    counts = [sum(bool(r.right) for r in batch.rollouts[q : q + size]) for q in range(0, len(batch), size)]
    return [q for q, right in enumerate(counts) if right in (0, size)]


def other_problem(rows: Sequence[Row], taken: Collection[int], key: str) -> Row | None:
    """A problem drawn by `key` alone from those whose row is not taken; None where there is no other."""
    free = [row for row in rows if row[0] not in taken]
    return Random(key).choice(free) if free else None


def resample(
    batch: RolloutBatch,
    rows: Sequence[Row],
    answer: Callable[[Sequence[Row]], RolloutBatch],
    rounds: int,
    key: str,
) -> RolloutBatch:
    """Put groups of other problems in the place of groups without spread.

    Which problems come depends on the key, the batch and nothing else: the epoch's order goes on as if they had not been
    asked, and a restarted run draws the same ones. What is without spread after the last round stays.

    Args:
        batch: the update's rollouts, judged.
        rows: all training problems with their rows.
        answer: samples groups of the same size.
        rounds: most times that a group is replaced.
        key: of the random draws; names the run's seed and the update.

    Returns:
        A batch of as many groups in the same places. Its figures count `resampled/groups`, the groups that were sampled
        in addition, and `resampled/left`, the share of groups without spread that are left.
    """
    size, count = batch.group_size, len(batch) // batch.group_size
    rollouts = list(batch.rollouts)
    first = [rollouts[q * size].row for q in range(count)]
    taken, seconds, extra = set(first), batch.seconds, 0
    for turn in range(rounds):
        places, fresh = [], []
        for q in zero_spread(replace(batch, rollouts=rollouts)):
            other = other_problem(rows, taken, f"{key}/{first[q]}/{turn}")
            if other is not None:
                taken.add(other[0])
                places.append(q)
                fresh.append(other)
        if not fresh:
            break
        answered = answer(fresh)
        seconds, extra = seconds + answered.seconds, extra + len(fresh)
        for i, q in enumerate(places):
            rollouts[q * size : (q + 1) * size] = answered.rollouts[i * size : (i + 1) * size]
    left = len(zero_spread(replace(batch, rollouts=rollouts))) / count
    figures = {"resampled/groups": float(extra), "resampled/left": left}
    return replace(batch, rollouts=rollouts, seconds=seconds, figures=batch.figures | figures)
