"""A tolerance that checks itself: now and then some groups are also solved by the reference, and the tolerance moves.

How exact a tolerance is depends on the policy: 0.007 agrees with the paper's loop by 0.999 on one and by 0.94 on another.
So the solver is told the agreement that is wanted instead, and finds the tolerance that gives it, again and again while the
policy learns. Checks are paid for in gradients, not seconds, and depend on positions in an update, not on who computes
what: the same run gives the same tolerances on any machine and number of processes, but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atmanrl.errors import UserError
from atmanrl.probe.agreement import Agreement

CONFIDENCE = 0.95
"""With which the agreement holds: of the one-sided lower bound that is held against the target."""
ALIKE = 1.25
"""Checks at tolerances within this factor of the present one are added up."""
MEMORY = 4
"""How many checks count at most: the policy of an old one is another policy."""
LOOSEST, TIGHTEST = 0.1, 1e-5
"""Bounds of the tolerance."""


class Calibration:
    """Decides when to check, and what tolerance follows.

    The first check is made at once. Every gradient of the probe then earns a share of one, and the next check waits until
    its own gradients are earned.

    Let d be 1 minus the lower bound of the correlation, d* the same of the target. Measured over policies, d grows with a
    power of the tolerance between 1 and 2. Both steps take the careful end: where the agreement is too low the tolerance
    shrinks by d*/d, and where it is better than needed it grows by no more than the root of d*/d.

    Args:
        target: wanted correlation of advantages with the reference's, in (0, 1).
        tolerance: to begin with.
        share: of the probe's gradients that checks may take, besides the first one.
        groups: how many groups of an update a check looks at.

    Attributes:
        tolerance: that the solver should use now.
        agreement: over the checks that count; None before the first.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(self, target: float, tolerance: float, share: float = 0.05, groups: int = 2) -> None:
        if not 0 < target < 1:
            raise UserError(
                f"the adaptive solver's agreement is {target}; give a correlation between 0 and 1, 0.99 say."
            )
        if not 0 < share <= 1:
            raise UserError(f"the adaptive solver's check_share is {share}; give a share above 0 and up to 1.")
        if groups < 1:
            raise UserError(f"the adaptive solver's check_groups is {groups}; give at least 1.")
        self.target, self.tolerance, self.share, self.groups = target, tolerance, share, groups
        self._earned = 0.0
        self._checks: list[tuple[float, Agreement]] = []

    @property
    def due(self) -> bool:
        """Whether this update's first groups are to be solved by the reference, too."""
        return self._earned >= 0

    @property
    def agreement(self) -> Agreement | None:
        """The checks that count, added up."""
        if not self._checks:
            return None
        last = self._checks[-1][0]
        return sum((found for at, found in self._checks if 1 / ALIKE <= at / last <= ALIKE), Agreement())

    def observe(self, gradients: int, check: Agreement, cost: int) -> None:
        """Take note of one update.

        Args:
            gradients: that the solver took, over all rollouts of all processes.
            check: what the reference said of the checked groups; an empty one changes nothing, nor does one that is too
                small or too uniform to say anything.
            cost: gradients that the reference took.
        """
        self._earned += self.share * gradients - cost
        if math.isnan(check.lower_bound(CONFIDENCE)):
            return
        self._checks = [*self._checks, (self.tolerance, check)][-MEMORY:]
        assert self.agreement is not None
        distance = max(1e-9, 1 - self.agreement.lower_bound(CONFIDENCE))
        ratio = (1 - self.target) / distance
        factor = max(ratio, 1 / 8) if ratio < 1 else min(math.sqrt(ratio), 3.0)
        if factor < 1 or factor > ALIKE:  # a small gain is not worth a history that no longer counts
            self.tolerance = min(LOOSEST, max(TIGHTEST, self.tolerance * factor))

    def metrics(self) -> dict[str, float]:
        """What is logged of it."""
        found = {"probe/tolerance": self.tolerance}
        if (agreement := self.agreement) is not None:
            found |= {
                "probe/agreement": agreement.pearson,
                "probe/agreement_lower": agreement.lower_bound(CONFIDENCE),
                "probe/agreement_slope": agreement.slope,
            }
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        checks = [[at, vars(found)] for at, found in self._checks]
        return {"tolerance": self.tolerance, "earned": self._earned, "checks": checks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint stood."""
        self.tolerance, self._earned = state["tolerance"], state["earned"]
        self._checks = [(at, Agreement(**found)) for at, found in state["checks"]]
