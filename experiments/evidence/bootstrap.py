"""Hierarchical bootstrap over seeds and problems, in numpy alone.

Every value is a sum over seeds and problems divided by another one: a share of words, a mean over rollouts, a mean over
problems. With numerators `N [seeds, problems]`, denominators `D`, and a draw that takes seed s `m[s]` times and problem p
`w[p]` times, it is (m N w) / (m D w).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class Ratio:
    """A value of one arm, by seed and problem.

    Attributes:
        above: numerators, `[seeds, problems]`.
        below: denominators, alike; 0 where nothing was measured.

    Example:
        Tokens of the reasoning: `above` sums them over a problem's samples, `below` counts the samples.
    """

    above: Floats
    below: Floats

    @cache  # noqa: B019  a summary compares the same values again and again, and then ends
    def first(self, seeds: int) -> Ratio:
        """The first seeds alone, those that a smaller arm has too."""
        return self if seeds == len(self.above) else Ratio(self.above[:seeds], self.below[:seeds])

    def value(self) -> float:
        """Over all seeds and problems; NaN where nothing was measured."""
        return float(self.drawn(np.ones((1, len(self.above))), np.ones((1, self.above.shape[1])))[0])

    def by_seed(self) -> list[float]:
        """The value of each seed."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values: list[float] = (self.above.sum(1) / self.below.sum(1)).tolist()
        return values

    @cached_property
    def resampled(self) -> Floats:
        """The value in each of `DRAWS` draws, the same for every value of these sizes: `[DRAWS]`."""
        return self.drawn(*draws(*self.above.shape))

    def drawn(self, seeds: Floats, problems: Floats) -> Floats:
        """The value in each of B draws.

        Args:
            seeds: how often each draw takes each seed, `[B, seeds]`.
            problems: how often it takes each problem, `[B, problems]`.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn: Floats = ((problems @ self.above.T) * seeds).sum(1) / ((problems @ self.below.T) * seeds).sum(1)
        return drawn


@cache
def draws(seeds: int, problems: int, count: int = DRAWS, seed: int = 0) -> tuple[Floats, Floats]:
    """How often each draw takes each seed, `[count, seeds]`, and each problem, `[count, problems]`.

    The same numbers for the same sizes, so that the two sides of a difference are drawn alike: seeds and problems are
    paired.
    """
    random = np.random.default_rng([seed, seeds, problems])
    return (
        random.multinomial(seeds, np.full(seeds, 1 / seeds), size=count).astype(np.float64),
        random.multinomial(problems, np.full(problems, 1 / problems), size=count).astype(np.float64),
    )


def p_value(differences: Floats) -> float:
    """Two-sided: twice the smaller share of draws beyond zero, at least one in as many as there are."""
    beyond = min(float((differences <= 0).mean()), float((differences >= 0).mean()))
    return min(1.0, max(2 * beyond, 1 / len(differences)))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction: p-values that may be compared with the level of the whole family.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = largest
    return corrected
