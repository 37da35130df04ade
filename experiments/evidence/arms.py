"""The arms of the experiment: what each rewards, and with how many seeds."""

from __future__ import annotations

from dataclasses import dataclass

OUTCOME, BOTH = "configs/laptop_baseline.yaml", "configs/laptop.yaml"
SALIENCY = "--model.rewards.saliency"


@dataclass(frozen=True)
class Arm:
    """One way of rewarding the laptop policy.

    Attributes:
        key: the letter by which the protocol names it.
        name: what a table calls it.
        config: a shipped configuration.
        options: what differs from it, as on the command line.
        seeds: how many seeds it gets.

    Example:
        `Arm("g", "saliency where right", BOTH, ("--model.rewards.saliency.only_where.reward=outcome",), 3)`
    """

    key: str
    name: str
    config: str
    options: tuple[str, ...] = ()
    seeds: int = 3


def _instead(name: str, class_path: str, weight: float, *options: str) -> tuple[str, ...]:
    """Options that add a reward to the outcome alone."""
    reward = f"--model.rewards.{name}"
    return (f"{reward}={class_path}", f"{reward}.weight={weight}", *(f"{reward}.{option}" for option in options))


ARMS = {
    arm.key: arm
    for arm in (
        Arm("a", "outcome", OUTCOME, seeds=5),
        Arm("b", "+ saliency (restored)", BOTH, seeds=5),
        Arm("c", "+ saliency (printed)", BOTH, (f"{SALIENCY}.probe.orientation=printed",), seeds=5),
        Arm(
            "d",
            "+ price on tokens",
            OUTCOME,
            _instead("price", "TokenPriceReward", 1.0, "price=0.0099", "of=reasoning"),
            5,
        ),
        Arm("e", "+ gold log-probability", OUTCOME, _instead("gold", "GoldLogprobReward", 0.11)),
        Arm("f", "+ causal importance", OUTCOME, _instead("importance", "CausalImportanceReward", 6.3), 5),
        Arm("g", "+ saliency where right", BOTH, (f"{SALIENCY}.only_where.reward=outcome",)),
        Arm("h", "+ saliency, token credit", BOTH, ("--model.credit=saliency",)),
        Arm("i", "+ saliency on a quarter", BOTH, (f"{SALIENCY}.share=0.25",)),
        Arm("j", "+ saliency, tolerance 0.03", BOTH, (f"{SALIENCY}.probe.solver.tolerance=0.03",)),
    )
}
"""By their letters, in the order of tables."""
