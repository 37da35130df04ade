"""Bootstrap intervals of Table 1's values, over problems: rollouts of one problem are alike, so problems are drawn.

Every value with an interval is a ratio of sums over problems (a share of tokens, a mean over rollouts or over problems;
see `metrics.ratio`), so one matrix of how often each problem was drawn gives all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atmanrl.report.rollouts import StoredRollout
from atmanrl.report.runs import Values

Floats = npt.NDArray[np.float64]

RESAMPLES, SEED, LEVEL = 10_000, 0, 95
"""How many times the problems are drawn, by which seed, and the intervals' level in per cent."""

_BLOCK = 1000
"""Draws at once; bounds the memory."""


@dataclass(frozen=True)
class Sums:
    """For each metric a numerator and a denominator of every problem.

    Example: `Sums(["sums/1", "sums/2"], {"pass_at_1": (np.array([0.25, 1.0]), np.array([1.0, 1.0]))})`

    Attributes:
        problems: P ids.
        fractions: numerators and denominators by the metric's key, shape `[P]` each.
    """

    problems: list[str]
    fractions: Mapping[str, tuple[Floats, Floats]]

    def values(self) -> Values:
        """Return the metrics over all problems."""
        ones = np.ones((1, len(self.problems)))
        return {key: float(values[0]) for key, values in self.weighted(ones).items()}

    def weighted(self, times: Floats) -> dict[str, Floats]:
        """Return the metrics where problem p counts `times[b, p]` times, shape `[B]`; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {key: (times @ above) / (times @ below) for key, (above, below) in self.fractions.items()}


def sums(rollouts: Sequence[StoredRollout], keys: Container[str]) -> Sums:
    """Sum by problem what a test's rollouts add to each metric that is among some keys."""
    problems = sorted({rollout.problem for rollout in rollouts})
    places = {problem: place for place, problem in enumerate(problems)}
    fractions: dict[str, tuple[Floats, Floats]] = {}
    for rollout in rollouts:
        for key, pair in rollout.metrics.items():
            if key in keys:
                both = fractions.setdefault(key, (np.zeros(len(problems)), np.zeros(len(problems))))
                for total, number in zip(both, pair, strict=True):
                    total[places[rollout.problem]] += number
    return Sums(problems, fractions)


def draws(test: Sums, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Floats]:
    """Return the metrics of `resamples` tests by key, each of as many problems drawn with replacement.

    The numbers drawn depend on the seed and on the problems' names: runs tested on the same problems are resampled
    alike, so that the difference of two metrics keeps what they have in common; others are resampled independently.
    """
    count = len(test.problems)
    random = np.random.default_rng([seed, zlib.crc32("\n".join(test.problems).encode())])
    blocks = []
    for start in range(0, resamples, _BLOCK):
        times = random.multinomial(count, np.full(count, 1 / count), size=min(_BLOCK, resamples - start))
        blocks.append(test.weighted(times.astype(np.float64)))
    return {key: np.concatenate([block[key] for block in blocks]) for key in test.fractions}


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the percentile interval of some draws; None where a draw is not defined."""
    if not len(values) or not np.isfinite(values).all():
        return None
    tail = (100 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
