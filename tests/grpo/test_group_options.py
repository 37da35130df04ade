"""Options of an update's groups: how rewards are scaled, which groups teach, and the order of the minibatches."""

from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from tiny_runs import GROUP, Fixed, Run

from atmanrl.grpo import GRPOModule, WarmupSchedule, group_advantages
from atmanrl.grpo.advantages import learning_groups
from atmanrl.grpo.update import minibatches
from atmanrl.models.policy import Policy


def test_a_floor_bounds_what_group_scaling_blows_up():
    rewards = torch.tensor([0.500, 0.501, 0.0, -1.0])
    plain, floored = (group_advantages(rewards, 2, "group", floor) for floor in (0.0, 0.1))
    assert plain[:2].abs().min() > 0.5 and floored[:2].abs().max() < 0.006
    torch.testing.assert_close(plain[2:], floored[2:])
    batch = torch.tensor([0.500, 0.501, 0.500, 0.501])
    assert group_advantages(batch, 2, "batch", 0.1).abs().max() < 0.1 * group_advantages(batch, 2, "batch").abs().max()


def test_the_floor_reaches_the_update(tiny_folder, start):
    options = {
        "rewards": {"r": Fixed(0.5, 0.501, 0.5, 0.501, 0.5, 0.501)},
        "scale_rewards": "group",
        "max_grad_norm": None,
    }
    moved = [
        float((Run(tiny_folder, updates=1, scale_rewards_floor=floor, **options).weights - start).norm())
        for floor in (0.0, 0.1)
    ]
    assert 0 < moved[1] < 0.05 * moved[0]


FLAT_SECOND = (0.0, 1.0, 0.5, 0.5, 1.0, 0.0)


def test_the_scaling_reaches_the_update_and_its_figures(tiny_folder):
    rewards = (0.0, 1.0, 0.5, 0.5, 0.3, 0.1)
    options = {"lr": 0.0, "num_iterations": 1, "minibatch_queries": 3, "max_grad_norm": None, "updates": 1}
    none, group, batch = (
        Run(tiny_folder, rewards={"r": Fixed(*rewards)}, scale_rewards=scaling, **options).logged
        for scaling in ("none", "group", "batch")
    )
    spread = torch.tensor(rewards).std() + 1e-4
    assert batch["grad_norm"] == pytest.approx(none["grad_norm"] / float(spread), rel=1e-4)
    assert abs(group["grad_norm"] / batch["grad_norm"] - 1) > 0.05
    assert group["frac_reward_zero_std"] == none["frac_reward_zero_std"] == pytest.approx(1 / 3)
    assert batch["frac_reward_zero_std"] == 0


def test_flat_groups_are_dropped(tiny_folder):
    runs = {
        kind: Run(tiny_folder, updates=1, lr=0.0, rewards={"r": Fixed(*FLAT_SECOND)}, zero_spread_groups=kind,
                  num_iterations=1, minibatch_queries=3, max_grad_norm=None)
        for kind in ("keep", "drop")
    }  # fmt: skip
    kept, dropped = (runs[kind].logged for kind in ("keep", "drop"))
    assert dropped["grad_norm"] == pytest.approx(1.5 * kept["grad_norm"], rel=1e-5)  # a mean over 4 and not 6
    assert dropped["groups_dropped"] == pytest.approx(1 / 3) and "groups_dropped" not in kept
    assert dropped["entropy"] != kept["entropy"] and dropped["reward"] == kept["reward"]


def test_an_update_of_flat_groups_alone_is_counted_and_changes_nothing(tiny_folder, start):
    """Neither a momentum nor weight decay moves the weights where there is nothing to learn."""
    policy = Policy(str(tiny_folder), dtype="float64")
    rewards = {"r": Fixed(*FLAT_SECOND)}
    module = GRPOModule(policy, rewards, lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
                        zero_spread_groups="drop", lr_scheduler=lambda o: WarmupSchedule(o, "linear", 0, 10))  # fmt: skip
    run = Run(tiny_folder, updates=0)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_steps=1,
                      enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)  # fmt: skip
    trainer.fit(module, run.feed)
    after = torch.cat([p.detach().flatten() for p in policy.parameters()])
    assert not torch.equal(after, start)
    rewards["r"].given = (1.0,) * 6
    trainer.fit_loop.epoch_loop.max_steps = 2
    trainer.fit(module, run.feed)
    assert trainer.global_step == 2 and float(trainer.callback_metrics["groups_dropped"]) == 1
    assert torch.equal(after, torch.cat([p.detach().flatten() for p in policy.parameters()]))
    assert trainer.callback_metrics["grad_norm"] == 0 == trainer.callback_metrics["loss"]


def test_minibatches_hold_whole_groups_each_once():
    groups = learning_groups(torch.tensor(FLAT_SECOND), GROUP, "drop")
    assert groups == [0, 2] and learning_groups(torch.tensor(FLAT_SECOND), GROUP) == [0, 1, 2]
    orders = [minibatches([0, 2, 3], GROUP, 2, seed) for seed in range(6)]
    for order in orders:
        assert [len(rows) for rows in order] == [4, 2] and sorted(sum(order, [])) == [0, 1, 4, 5, 6, 7]
        assert all(rows[k] % 2 == 0 and rows[k + 1] == rows[k] + 1 for rows in order for k in range(0, len(rows), 2))
    assert len({str(order) for order in orders}) > 1 and orders[0] == minibatches([0, 2, 3], GROUP, 2, 0)


def test_the_seed_orders_the_minibatches():
    def order(seed, update=0, iteration=0):
        module = GRPOModule(Policy("nowhere"), seed=seed)
        module._trainer = SimpleNamespace(global_step=update)
        experience = SimpleNamespace(batch=SimpleNamespace(group_size=1), learning_groups=list(range(16)))
        return module._minibatches(experience, iteration)

    assert order(3) == order(3) and len({str(order(*key)) for key in [(3,), (4,), (3, 1), (3, 0, 1)]}) == 4
