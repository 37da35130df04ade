"""A tolerance that calibrates itself: now and then some groups are also solved by the reference, and it is adjusted.

How exact a tolerance is depends on the policy: with 0.007, advantages correlate with the paper's by 0.999 on one policy and
by 0.94 on another. So the user names the agreement instead, and the tolerance that gives it is searched for, again and
again while the policy learns. The cost of checks is counted in gradients, not in seconds, and what is checked depends on
positions in an update, not on which process computes them: but for rounding, the same run has the same tolerances on any
machine and number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atmanrl.errors import UserError
from atmanrl.probe.agreement import Agreement

CONFIDENCE = 0.95
"""The confidence of the one-sided lower bound that is compared with the target."""
ALIKE = 1.25
"""Checks at tolerances within this factor of the present one are added up."""
MEMORY = 6
"""The number of latest checks that count: older ones were of another policy."""
FASTEST = 2.0
"""A check loosens the tolerance by no more than this factor."""
LOOSEST, TIGHTEST = 0.1, 1e-5
"""Bounds of the tolerance."""


class Calibration:
    """Decides when to check, and what tolerance follows from a check.

    The first check is due at once. From then on, every gradient that the probe takes pays for `share` of a reference
    gradient, and the next check is due once the last one is paid for.

    Let d be 1 minus the lower bound of the correlation, and d* 1 minus the target. Measured over policies, d grows with a
    power of the tolerance between 1 and 3. Either way the careful end is taken: where the agreement is too low, the
    tolerance is multiplied by d*/d (power 1), and where it is better than needed, by at most the cube root of d*/d (power
    3). Two groups tell little, and a policy may be sensitive to more than they show: a tolerance that failed is approached
    by halves (of its logarithm) alone, as long as the check counts.

    Args:
        target: wanted correlation of advantages with the reference's, in (0, 1).
        tolerance: the one to begin with.
        share: share of the probe's gradients that checks may take, besides the first one.
        groups: number of groups of an update that a check looks at.

    Attributes:
        tolerance: the one that the solver should use now.
        agreement: over the checks that count; None before the first.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(self, target: float, tolerance: float, share: float = 0.05, groups: int = 2) -> None:
        if not 0 < target < 1:
            raise UserError(
                f"agreement is {target} (in YAML, probe.solver.agreement); give a correlation between 0 and 1, such as 0.99."
            )
        if not 0 < share <= 1:
            raise UserError(
                f"check_share is {share} (in YAML, probe.solver.check_share); give a share above 0, up to 1."
            )
        if groups < 1:
            raise UserError(f"check_groups is {groups} (in YAML, probe.solver.check_groups); give at least 1.")
        self.target, self.tolerance, self.share, self.groups = target, tolerance, share, groups
        self._earned = 0.0
        self._checks: list[tuple[float, Agreement]] = []

    @property
    def due(self) -> bool:
        """Whether this update's first groups are to be solved by the reference too."""
        return self._earned >= 0

    @property
    def agreement(self) -> Agreement | None:
        """The checks that count, added up."""
        if not self._checks:
            return None
        last = self._checks[-1][0]
        return sum((check for at, check in self._checks if 1 / ALIKE <= at / last <= ALIKE), Agreement())

    def observe(self, gradients: int, check: Agreement, cost: int) -> None:
        """Record an update, and adjust the tolerance if it was checked.

        Args:
            gradients: number that the solver took, over all rollouts of all processes.
            check: the agreement in the checked groups. The tolerance stays where it is empty, or too small or too uniform
                for a lower bound.
            cost: number of gradients that the reference took.
        """
        self._earned += self.share * gradients - cost
        if math.isnan(check.lower_bound(CONFIDENCE)):
            return
        self._checks = [*self._checks, (self.tolerance, check)][-MEMORY:]
        assert self.agreement is not None
        distance = max(1e-9, 1 - self.agreement.lower_bound(CONFIDENCE))
        ratio = (1 - self.target) / distance
        if ratio < 1:
            self._move(max(ratio, 1 / 8))
        else:
            failed = [at for at, each in self._checks if each.lower_bound(CONFIDENCE) < self.target]
            halfway = min((math.sqrt(at / self.tolerance) for at in failed if at > self.tolerance), default=FASTEST)
            self._move(min(ratio ** (1 / 3), FASTEST, halfway))

    def _move(self, factor: float) -> None:
        """Multiply the tolerance by a factor, but for a small gain, which is not worth a history that no longer counts."""
        if factor < 1 or factor > ALIKE:
            self.tolerance = min(LOOSEST, max(TIGHTEST, self.tolerance * factor))

    def metrics(self) -> dict[str, float]:
        """Return what is logged: the tolerance, and the agreement once there is one."""
        metrics = {"probe/tolerance": self.tolerance}
        if (agreement := self.agreement) is not None:
            metrics |= {
                "probe/agreement": agreement.pearson,
                "probe/agreement_lower": agreement.lower_bound(CONFIDENCE),
                "probe/agreement_slope": agreement.slope,
            }
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers, for a checkpoint."""
        checks = [[at, vars(check)] for at, check in self._checks]
        return {"tolerance": self.tolerance, "earned": self._earned, "checks": checks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.tolerance, self._earned = state["tolerance"], state["earned"]
        self._checks = [(at, Agreement(**check)) for at, check in state["checks"]]
