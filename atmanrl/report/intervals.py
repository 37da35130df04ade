"""Bootstrap intervals of Table 1's values, over problems: rollouts of one problem are alike, so problems are drawn.

Every value with an interval is a sum over problems divided by another one (a share of tokens, a mean over rollouts, a
mean over problems; see `metrics.per_problem`), so one matrix of how often each problem was drawn gives all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atmanrl.metrics.columns import UNRECORDED
from atmanrl.metrics.per_problem import Floats, fractions
from atmanrl.report.answers import Answer
from atmanrl.report.runs import Row

RESAMPLES, SEED, LEVEL = 10_000, 0, 95
"""How many times the problems are drawn, by which seed, and the intervals' level in per cent."""

_BLOCK = 1000
"""Draws at once; bounds the memory."""


@dataclass(frozen=True)
class Sums:
    """For each figure a numerator and a denominator of every problem, P of each; figures in the units of `Row`."""

    problems: list[str]
    over: Mapping[str, tuple[Floats, Floats]]

    def metrics(self) -> Row:
        """The figures over all problems."""
        ones = np.ones((1, len(self.problems)))
        return {key: float(values[0]) for key, values in self.weighted(ones).items()}

    def weighted(self, times: Floats) -> dict[str, Floats]:
        """The figures where problem p counts `times[b, p]` times, B values of each; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {key: (times @ above) / (times @ below) for key, (above, below) in self.over.items()}


def sums(
    answers: Sequence[Answer],
    counts: npt.NDArray[np.int64] | None,
    keys: Iterable[str] = (*UNRECORDED, "pass_at_4"),
) -> Sums:
    """A test's rollouts as sums by problem.

    Args:
        answers: ordered by problem.
        counts: of each one's words, as `Words.counts` gives them; without them the shares of words are left out.
        keys: of the test's values; those of metrics that are no fractions of such sums are left out. pass@k is NaN where
            a problem has fewer samples.
    """
    problems = sorted({answer.problem for answer in answers})
    place = {problem: number for number, problem in enumerate(problems)}
    where = np.array([place[answer.problem] for answer in answers], dtype=np.int64)

    def by_problem(values: npt.ArrayLike) -> Floats:
        totals = np.bincount(where, weights=np.asarray(values, dtype=np.float64), minlength=len(problems))
        return totals.astype(np.float64)

    return Sums(problems, fractions(keys, answers, counts, by_problem))


def draws(found: Sums, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Floats]:
    """The figures of `resamples` tests, each of as many problems drawn with replacement.

    The numbers drawn depend on the seed and on the problems' names: runs tested on the same problems are resampled
    alike, so that the difference of two figures keeps what they have in common; others are resampled independently.
    """
    count = len(found.problems)
    random = np.random.default_rng([seed, zlib.crc32("\n".join(found.problems).encode())])
    blocks = []
    for start in range(0, resamples, _BLOCK):
        times = random.multinomial(count, np.full(count, 1 / count), size=min(_BLOCK, resamples - start))
        blocks.append(found.weighted(times.astype(np.float64)))
    return {key: np.concatenate([block[key] for block in blocks]) for key in found.over}


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """The percentile interval of some draws; None where a draw is not defined."""
    if not len(values) or not np.isfinite(values).all():
        return None
    tail = (100 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
