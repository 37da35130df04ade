"""The arms of the experiment: what each rewards, and with how many seeds.

`ARMS` are those of the protocol's questions, `FRONTIER` some of them at other weights, `EARLIER` some of them trained for
less long, `SECOND` some of them on a second task.
"""

from __future__ import annotations

from dataclasses import dataclass

OUTCOME, BOTH, SFT = "configs/laptop_baseline.yaml", "configs/laptop.yaml", "configs/laptop_sft.yaml"
SALIENCY = "--model.rewards.saliency"
WARM_START = "experiments/laptop/policy"
STEPS = ("fit", "test", "count", "measure")
TUNING_STEPS = ("tune", "count_tuning")
"""The test on the tuning problems, by which a weight is chosen."""


@dataclass(frozen=True)
class Arm:
    """One way of rewarding the laptop policy.

    Attributes:
        key: the letter by which the protocol names it.
        name: what a table calls it.
        config: a shipped configuration.
        options: what differs from it, as on the command line.
        seeds: how many seeds it gets.
        task: options of its problems, without their seed, where they are not the configuration's.
        warm_start: folder of the policy that it begins with, `{runs}` and `{seed}` being the queue's.
        steps: what is done with it, in this order.
        tuned: how many of its seeds answer the tuning problems too.
        checkpoint: of another arm's run, which is tested in place of a policy of its own; `{runs}` and `{seed}` likewise.
        test_config: the configuration of its tests, where `config` is not one of rollouts.

    Example:
        `Arm("g", "saliency where right", BOTH, ("--model.rewards.saliency.only_where.reward=outcome",), 3)`
    """

    key: str
    name: str
    config: str
    options: tuple[str, ...] = ()
    seeds: int = 3
    task: tuple[str, ...] = ()
    warm_start: str = WARM_START
    steps: tuple[str, ...] = STEPS
    tuned: int = 0
    checkpoint: str | None = None
    test_config: str | None = None


def _instead(name: str, class_path: str, weight: float, *options: str) -> tuple[str, ...]:
    """Options that add a reward to the outcome alone."""
    reward = f"--model.rewards.{name}"
    return (f"{reward}={class_path}", f"{reward}.weight={weight}", *(f"{reward}.{option}" for option in options))


ARMS = {
    arm.key: arm
    for arm in (
        Arm("a", "outcome", OUTCOME, seeds=5, tuned=2),
        Arm("b", "+ saliency (restored)", BOTH, seeds=5, tuned=2),
        Arm("c", "+ saliency (printed)", BOTH, (f"{SALIENCY}.probe.orientation=printed",), seeds=5),
        Arm(
            "d",
            "+ price on tokens",
            OUTCOME,
            _instead("price", "TokenPriceReward", 1.0, "price=0.0099", "of=reasoning"),
            5,
            tuned=2,
        ),
        Arm("e", "+ gold log-probability", OUTCOME, _instead("gold", "GoldLogprobReward", 0.11)),
        Arm("f", "+ causal importance", OUTCOME, _instead("importance", "CausalImportanceReward", 6.3), 5),
        Arm("g", "+ saliency where right", BOTH, (f"{SALIENCY}.only_where.reward=outcome",)),
        Arm("h", "+ saliency, token credit", BOTH, ("--model.credit=saliency",)),
        Arm("i", "+ saliency on a quarter", BOTH, (f"{SALIENCY}.share=0.25",)),
        Arm("j", "+ saliency, tolerance 0.03", BOTH, (f"{SALIENCY}.probe.solver.tolerance=0.03",)),
        Arm(
            "k",
            "+ saliency, quarter, 0.03",
            BOTH,
            (f"{SALIENCY}.share=0.25", f"{SALIENCY}.probe.solver.tolerance=0.03"),
        ),
    )
}
"""By their letters, in the order of tables."""

MULTIPLES = {"025": 0.25, "050": 0.5}
"""Of an arm's weight, by what they add to its key: the same trials for each arm of the frontier."""


def _weighted(arm: Arm, reward: str, weight: float, suffix: str) -> Arm:
    """An arm whose second reward has another weight; tuned, tested, and not measured."""
    multiple = MULTIPLES[suffix]
    option = f"--model.rewards.{reward}.weight={multiple * weight:g}"
    name = f"{arm.name}, weight x {multiple:g}"
    return Arm(f"{arm.key}{suffix}", name, arm.config, (*arm.options, option), 2, steps=STEPS[:-1], tuned=2)


FRONTIER = {
    arm.key: arm
    for suffix in MULTIPLES
    for arm in (
        _weighted(ARMS["b"], "saliency", 10.0, suffix),
        _weighted(ARMS["d"], "price", 1.0, suffix),
    )
}
"""Arms b and d at other weights: length against pass@4."""

EARLIER = {
    f"{key}75": Arm(
        f"{key}75",
        f"{ARMS[key].name}, 75 updates",
        ARMS[key].config,
        ARMS[key].options,
        5,
        steps=STEPS[1:3],
        checkpoint=f"{{runs}}/{key}-{{seed}}/run/checkpoints/update_00075.ckpt",
    )
    for key in ("b", "d")
}
"""Arms b and d after three quarters of their updates: tests of a checkpoint, without a run of their own."""

CHAINS = (
    "--data.task=MultiHop", "--data.task.steps=[2,3]", "--data.task.train_size=10000", "--data.task.test_size=1000",
    "--data.task.instruction=",
)  # fmt: skip
"""The problems of the second task: chains of two or three steps."""
_CHAINS_WARM = "{runs}/mw-{seed}/run/policy"


def _on_chains(arm: Arm, *options: str) -> Arm:
    """An arm on the second task, which begins with that task's own warm start of its seed."""
    name, options = f"{arm.name}, chains", (*arm.options, *options, "--data.task.seed=2")
    return Arm(f"m{arm.key}", name, arm.config, options, 3, CHAINS, _CHAINS_WARM)


SECOND = {
    arm.key: arm
    for arm in (
        Arm(
            "mw",
            "warm start, chains",
            SFT,
            ("--model.policy.pretrained=true", "--model.lr=1.0e-3", "--trainer.max_steps=800", "--data.task.seed=0"),
            3,
            (*CHAINS[:2], "--data.task.train_size=60000", *CHAINS[3:]),
            steps=STEPS[:-1],
            tuned=3,
            test_config=OUTCOME,
        ),
        _on_chains(ARMS["a"]),
        _on_chains(ARMS["b"]),
        _on_chains(ARMS["d"]),
    )
}
"""The second task: its warm starts, which come first, and arms a, b and d."""

EVERY = ARMS | FRONTIER | EARLIER | SECOND
"""All that the queue knows by its key."""
