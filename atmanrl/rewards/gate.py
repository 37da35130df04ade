"""`Gate`: a reward that counts only where another one is high enough."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Where a reward counts: only in rollouts whose reward `reward` is at least `at_least`.

    Elsewhere it adds 0 to the total, whatever its sign and its group, and is not even computed. What it gives to the
    others should not be negative where the gate is a virtue: a penalty for right answers alone makes wrong ones pay.

    Attributes:
        reward: name of another reward; where that one abstains, this one does not count.
        at_least: by its value before its weight; 0 is a right answer for the outcome reward.

    Example:
        `Gate("outcome", at_least=0)` counts only in rollouts whose answer is right.
    """

    reward: str
    at_least: float = 0.0
