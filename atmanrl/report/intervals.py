"""Bootstrap intervals of Table 1's figures, over problems: rollouts of one problem are alike, so problems are drawn.

Every figure is a sum over problems divided by another one (a share of tokens, a mean over rollouts, a mean over
problems), so one matrix of how often each problem was drawn gives all of them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atmanrl.metrics.estimators import pass_at_k
from atmanrl.report.answers import Answer
from atmanrl.report.runs import Row

Floats = npt.NDArray[np.float64]

RESAMPLES, SEED, LEVEL = 10_000, 0, 95
"""How many times the problems are drawn, by which seed, and the intervals' level in per cent."""

_BLOCK = 1000
"""Draws at once; bounds the memory."""


@dataclass(frozen=True)
class Sums:
    """For each figure a numerator and a denominator of every problem, P of each; figures in the units of `Row`."""

    problems: list[str]
    over: Mapping[str, tuple[Floats, Floats]]

    def figures(self) -> Row:
        """The figures over all problems."""
        ones = np.ones((1, len(self.problems)))
        return {key: float(values[0]) for key, values in self.weighted(ones).items()}

    def weighted(self, times: Floats) -> dict[str, Floats]:
        """The figures where problem p counts `times[b, p]` times, B values of each; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {key: (times @ above) / (times @ below) for key, (above, below) in self.over.items()}


def sums(answers: Sequence[Answer], counts: npt.NDArray[np.int64] | None, ks: Sequence[int] = (1, 4)) -> Sums:
    """A test's rollouts as sums by problem.

    Args:
        answers: ordered by problem.
        counts: of each one's words, as `Words.counts` gives them; without them the shares of words are left out.
        ks: of pass@k; NaN where a problem has fewer samples.
    """
    problems = sorted({answer.problem for answer in answers})
    place = {problem: number for number, problem in enumerate(problems)}
    where = np.array([place[answer.problem] for answer in answers], dtype=np.int64)

    def by_problem(values: npt.ArrayLike) -> Floats:
        counts = np.bincount(where, weights=np.asarray(values, dtype=np.float64), minlength=len(problems))
        return counts.astype(np.float64)

    samples, right = by_problem(np.ones(len(where))), by_problem([answer.right for answer in answers])
    over = {"tokens_per_cot": (by_problem([answer.length for answer in answers]), samples)}
    if counts is not None:
        tokens = by_problem(counts[:, 0])
        for column, key in enumerate(("numbers_pct", "stop_words_pct", "symbols_pct"), start=1):
            over[key] = (100 * by_problem(counts[:, column]), tokens)
    for k in ks:
        passed = [pass_at_k(int(n), int(c), k) if n >= k else math.nan for n, c in zip(samples, right, strict=True)]
        over[f"pass_at_{k}"] = (np.array(passed), np.ones(len(problems)))
    return Sums(problems, over)


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
