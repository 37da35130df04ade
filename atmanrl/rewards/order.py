"""The order in which rewards are called, where some are gated on others."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.rewards.base import Reward


def in_order(rewards: Mapping[str, Reward]) -> list[str]:
    """Return the names of rewards, each after the one that it is gated on.

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
    """Return the rewards that neither run the policy nor are gated on one that does: what evaluation can afford."""
    kept: dict[str, Reward] = {}
    for name in in_order(rewards):
        gate = rewards[name].only_where
        if not rewards[name].uses_policy and (gate is None or gate.reward in kept):
            kept[name] = rewards[name]
    return {name: rewards[name] for name in rewards if name in kept}
