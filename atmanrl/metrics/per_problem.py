"""Values of stored rollouts as fractions of sums over problems: what bootstrap intervals are made of. Without torch.

A metric that is not here shows without an interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from atmanrl.metrics.columns import COMPOSITION
from atmanrl.metrics.estimators import pass_at_k

Floats = npt.NDArray[np.float64]


class StoredRollout(Protocol):
    """What the metrics here read of a rollout: whether it is right, and the length of its reasoning in tokens."""

    @property
    def correct(self) -> bool: ...  # noqa: D102

    @property
    def length(self) -> int: ...  # noqa: D102


def fractions(
    keys: Iterable[str],
    rollouts: Sequence[StoredRollout],
    words: npt.NDArray[np.int64] | None,
    by_problem: Callable[[npt.ArrayLike], Floats],
) -> dict[str, tuple[Floats, Floats]]:
    """A numerator and a denominator of every problem, for those of some keys whose metric is known here.

    Args:
        keys: of a test's values.
        rollouts: of the test.
        words: tokens, numbers, stop words and symbols of each one's reasoning, shape [rollouts, 4]; None leaves out the
            shares of words.
        by_problem: sums a value of each rollout over those of each problem.
    """
    samples = by_problem(np.ones(len(rollouts)))
    right = by_problem([rollout.correct for rollout in rollouts])
    found: dict[str, tuple[Floats, Floats]] = {}
    for key in keys:
        if key == "tokens_per_cot":
            found[key] = by_problem([rollout.length for rollout in rollouts]), samples
        elif key in COMPOSITION and words is not None:
            column = 1 + list(COMPOSITION).index(key)
            found[key] = 100 * by_problem(words[:, column]), by_problem(words[:, 0])
        elif match := re.fullmatch(r"pass_at_([1-9][0-9]*)", key):
            k = int(match[1])
            passed = [pass_at_k(int(n), int(c), k) if n >= k else math.nan for n, c in zip(samples, right, strict=True)]
            found[key] = np.array(passed), np.ones(len(samples))
    return found
