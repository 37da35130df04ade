"""Gates: a reward that counts only where another one is high enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from atmanrl import escape
from atmanrl.errors import UserError

if TYPE_CHECKING:
    from atmanrl.rewards.base import Reward


@dataclass(frozen=True)
class Gate:
    """Where a reward counts: only in rollouts whose reward `reward` is at least `at_least`.

    Elsewhere it adds 0 to the total, whatever its sign and its group, and is not even computed. What it gives to the
    others should not be negative where the gate is a virtue: a penalty for right answers alone makes wrong ones pay.

    Attributes:
        reward: name of another reward; where that one abstains, this one does not count.
        at_least: by its value before its weight; 0 is a right answer for the outcome reward.
    """

    reward: str
    at_least: float = 0.0


def in_order(rewards: Mapping[str, Reward]) -> list[str]:
    """Names of rewards, each after the one that it is gated on.

    Raises:
        UserError: a name that does not print, a gate on a reward that is not there, or gates in a circle; the option is
            named.
    """
    before: dict[str, set[str]] = {}
    for name, reward in rewards.items():
        if not escape.is_line(name):
            raise UserError(
                f"model.rewards: {name!r} is no name; take letters, digits and other characters that print."
            )
        gate = reward.only_where
        if gate is not None and gate.reward not in rewards:
            others = ", ".join(other for other in rewards if other != name)
            raise UserError(
                f"model.rewards.{name}.only_where.reward: there is no reward {gate.reward!r}; "
                + (f"choose one of {others}." if others else "a gate needs a second reward.")
            )
        before[name] = set() if gate is None else {gate.reward}
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise UserError(f"model.rewards: the gates (only_where) go in a circle: {circle}.") from error


def without_policy(rewards: Mapping[str, Reward]) -> dict[str, Reward]:
    """The rewards that do not run the policy, and are not gated on one that does: what evaluation can afford."""
    kept: dict[str, Reward] = {}
    for name in in_order(rewards):
        gate = rewards[name].only_where
        if not rewards[name].uses_policy and (gate is None or gate.reward in kept):
            kept[name] = rewards[name]
    return {name: rewards[name] for name in rewards if name in kept}
