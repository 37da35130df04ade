"""How well a solver agrees with the paper's on a few traces that both of them solve: what `check=K` reports."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmanrl.errors import UserError
from atmanrl.probe.agreement import Agreement
from atmanrl.probe.module import MaskProbe
from atmanrl.probe.solvers import PaperSolver

CONFIDENCE = 0.95
"""The confidence of the two-sided interval of a correlation."""


@dataclass(frozen=True)
class SolvedTwice:
    """A trace that the solver in question and the paper's have both solved.

    Attributes:
        reward: saliency reward by the solver in question.
        saliency: of each token of the reasoning, by that solver.
        reference_reward: the reward by the paper's solver.
        reference_saliency: of each token, by the paper's solver.
        group: the same for traces of one prompt.

    Example:
        `SolvedTwice(0.094, (0.31, 0.02, -0.05), 0.095, (0.31, 0.03, -0.05), group="3 + 4?")`
    """

    reward: float
    saliency: Sequence[float]
    reference_reward: float
    reference_saliency: Sequence[float]
    group: Hashable = None


@dataclass(frozen=True)
class ReferenceCheck:
    """Agreement of a solver with the paper's over K traces.

    Attributes:
        traces: K.
        grouped: whether rewards are compared as in training, by their distance from the mean of their group; otherwise,
            where no prompt has two traces, by that from the mean of all.
        agreement: of rewards.
        largest_difference: of a reward.
        spearman: mean rank correlation of a trace's token saliencies; NaN where no trace has one.
        least_spearman: that of the trace with the smallest.

    Example:
        `ReferenceCheck(8, False, Agreement(8, 1, xx=0.02, yy=0.02, xy=0.02, largest=0.001), 0.001, 0.998, 0.991)`
    """

    traces: int
    grouped: bool
    agreement: Agreement
    largest_difference: float
    spearman: float
    least_spearman: float

    @classmethod
    def of(cls, traces: Sequence[SolvedTwice]) -> ReferenceCheck:
        """Compare the two results of at least one trace."""
        groups = [trace.group for trace in traces]
        grouped = len(set(groups)) < len(groups)
        rewards = [trace.reference_reward for trace in traces], [trace.reward for trace in traces]
        ranks = [spearman(trace.reference_saliency, trace.saliency) for trace in traces]
        ranks = [each for each in ranks if not math.isnan(each)]
        return cls(
            len(traces), grouped, Agreement.of(*rewards, groups if grouped else [None] * len(groups)),
            max(abs(x - y) for x, y in zip(*rewards, strict=True)), fmean(ranks) if ranks else math.nan,
            min(ranks, default=math.nan),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, with None for what so few traces cannot tell."""
        low, high = self.agreement.interval(CONFIDENCE)
        figures = {
            "pearson": self.agreement.pearson, "pearson_low": low, "pearson_high": high, "slope": self.agreement.slope,
            "largest_difference": self.largest_difference, "token_spearman": self.spearman,
            "token_spearman_least": self.least_spearman,
        }  # fmt: skip
        known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"traces": self.traces, "within_groups": self.grouped, **known}

    def __str__(self) -> str:
        """Say it in one line."""
        number = "1 trace" if self.traces == 1 else f"{self.traces} traces"
        ranks = "token saliencies have no rank correlation"
        if not math.isnan(self.spearman):
            ranks = f"token saliencies have a rank correlation of {self.spearman:.4f}"
            ranks += f" on average, {self.least_spearman:.4f} at least" if self.traces > 1 else ""
        largest = f"rewards differ by {'at most ' if self.traces > 1 else ''}{self.largest_difference:.2g}"
        return f"{number} also solved by the paper's solver: {self._rewards()}; {largest}; {ranks}."

    def _rewards(self) -> str:
        """Say how rewards correlate, and how little is known of it."""
        if self.traces == 1:
            return "one trace has no correlation of rewards"
        where = " within groups" if self.grouped else ""
        pearson = self.agreement.pearson
        if math.isnan(pearson):
            return f"rewards have no correlation{where}, for they are all the same or of different prompts"
        low, high = self.agreement.interval(CONFIDENCE)
        said = f"rewards correlate by {pearson:.4f}{where}"
        if math.isnan(low):
            return (
                f"{said}, of which so few say next to nothing (an interval takes 3 different traces more than groups)"
            )
        return f"{said} ({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f}), slope {self.agreement.slope:.3f}"


def spearman(reference: Sequence[float], values: Sequence[float]) -> float:
    """Return the rank correlation of two lists of numbers; NaN where one is constant, or there are fewer than two."""
    if min(len(set(reference)), len(set(values))) < 2:
        return math.nan
    return float(np.corrcoef(_ranks(reference), _ranks(values))[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the rank of each number; those that tie share the mean of theirs."""
    _, place, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[place])


def check_possible(probe: MaskProbe, count: int | None, name: str) -> None:
    """Refuse a check that cannot be, and a solver that could not check itself, before anything is computed.

    Args:
        probe: whose solver is to be checked.
        count: of the traces; None for no check.
        name: of the option, as the user typed it.

    Raises:
        UserError: there is nothing to check, no trace to check it on, or the solver's tolerance is to follow from an
            agreement, for which a policy has to be trained.
    """
    if probe.attribution is None and probe.solver.calibration is not None:
        raise UserError(
            "agreement (of the solver) moves a tolerance while a policy is trained, and here it would stay what it is; "
            f"leave it out, and give {name} to see how well the solver agrees."
        )
    if count is None:
        return
    if count < 1:
        raise UserError(f"{name} is {count}; give at least 1, or leave it out.")
    if probe.attribution is not None:
        raise UserError(f"{name} checks a solver, and {type(probe.attribution).__name__} has none; leave it out.")
    if type(probe.solver) is PaperSolver:
        raise UserError(
            f"{name} compares a solver with the paper's, which this one is; name another, such as adaptive, or leave it out."
        )


def spread_over(groups: Sequence[Hashable], count: int) -> list[int]:
    """Choose traces to check: evenly over the file, and by whole groups, as far as `count` goes.

    Groups of one are left out where the others suffice: only several traces of a prompt can be compared as in training.

    Args:
        groups: of each trace in its order.
        count: how many are wanted; all where there are no more.

    Returns:
        Their places, in order.

    Example:
        `spread_over(["a", "a", "b", "b", "c", "c"], 2)` is `[2, 3]`.
    """
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    several = [places for places in members.values() if len(places) > 1]
    pool = several if sum(map(len, several)) >= count else list(members.values())
    for number in range(1, len(pool) + 1):
        taken = [place for k in range(number) for place in pool[(2 * k + 1) * len(pool) // (2 * number)]]
        if len(taken) >= count:
            break
    else:
        taken = list(range(len(groups)))
    return sorted(islice(taken, count))
