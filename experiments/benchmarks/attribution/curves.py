"""Deletion and insertion curves as numbers: RISE and MAS.

Tokens are taken away (deletion) or put back (insertion) in the order of their attribution, highest first, in at most 20
steps of equal size. r_k is the response after step k: log p of the answer. It is scaled to run from 0, no token there, to
1, all of them there, and made monotonic:

- deletion: n_k = min over j <= k of clip((r_j - r_S) / |r_0 - r_S|, 0, 1);
- insertion: n_k = max over j <= k of clip((r_j - r_0) / |r_S - r_0|, 0, 1).

**RISE** (Petsiuk et al. 2018, arXiv 1806.07421) is the area under n: low is good for deletion, high for insertion.
**MAS** (Walker et al. 2024, "Beyond RISE: Magnitude Aligned Scoring") also asks whether the attributions' sizes follow the
response. With d_k the share of all attribution that is still there after step k, it is the area under n + |n - d| for
deletion and n - |n - d| for insertion, clipped to [0, 1] and stretched to it.

Deletion is FlashTrace's evaluation to the letter (Pan et al. 2026, arXiv 2602.01914; `faithfulness_test`): k = 20, pad
tokens in place of what is taken away, negative attributions counted as 0 in d, a straight line where d or MAS is not
defined. It breaks ties between tokens as its sort happens to; here the first comes first. Insertion, which FlashTrace does
not have, is Walker et al.'s, scaled alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 20


@dataclass(frozen=True)
class Areas:
    """The two areas under one curve, each from 0 to 1.

    Example: `Areas(rise=0.31, mas=0.42)`
    """

    rise: float
    mas: float


def groups(scores: Sequence[float], steps: int = STEPS) -> list[list[int]]:
    """Return the places of the tokens that each step takes: highest scores first, of equal ones the first.

    Args:
        scores: of at least one token.
        steps: how many, at most one a token; the first steps take one token more where it does not come out even.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return [part.tolist() for part in np.array_split(order, min(steps, len(order)))]


def density(scores: Sequence[float], parts: Sequence[Sequence[int]]) -> Floats:
    """Return the share of all attribution that is left after each of S steps, `[S + 1]`, from 1 to 0."""
    positive = np.clip(np.asarray(scores, dtype=np.float64), 0, None)
    if not positive.sum() > 0:
        return np.linspace(1.0, 0.0, len(parts) + 1)
    taken = np.array([positive[list(part)].sum() for part in parts]) / positive.sum()
    return np.concatenate([[1.0], 1 - taken.cumsum()])


def deletion(responses: Floats, left: Floats) -> Areas:
    """Return the areas of a deletion curve; low is good.

    Args:
        responses: `[S + 1]`, the first with all tokens and the last with none.
        left: the `density` after each step, `[S + 1]`.
    """
    scaled = _scaled(responses - responses[-1], responses[0] - responses[-1], undefined=1.0)
    monotonic = np.minimum.accumulate(scaled)
    return Areas(area(monotonic), _aligned(monotonic, left, sign=1, otherwise=np.linspace(1.0, 0.0, len(left))))


def insertion(responses: Floats, left: Floats) -> Areas:
    """Return the areas of an insertion curve; high is good.

    Args:
        responses: `[S + 1]`, the first with no token and the last with all.
        left: the `density` that is still to come after each step, `[S + 1]`.
    """
    scaled = _scaled(responses - responses[0], responses[-1] - responses[0], undefined=0.0)
    monotonic = np.maximum.accumulate(scaled)
    return Areas(area(monotonic), _aligned(monotonic, 1 - left, sign=-1, otherwise=np.linspace(0.0, 1.0, len(left))))


def area(curve: Floats) -> float:
    """Return the area under a curve of evenly spaced points over an interval of length 1, by trapezoids."""
    return float((curve.sum() - curve[0] / 2 - curve[-1] / 2) / max(1, len(curve) - 1))


def _scaled(differences: Floats, whole: np.float64, undefined: float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = differences / abs(whole)
    return np.clip(np.where(np.isnan(shares), undefined, shares), 0, 1)


def _aligned(monotonic: Floats, share: Floats, sign: int, otherwise: Floats) -> float:
    """The area after the penalty for attributions that do not follow the response, stretched to [0, 1]."""
    corrected = np.clip(monotonic + sign * np.abs(monotonic - share), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        stretched = (corrected - corrected.min()) / (corrected.max() - corrected.min())
    return area(otherwise if np.isnan(stretched).any() else stretched)
