"""Schedules against those of transformers, in whole runs, and what an optimizer or a schedule refuses."""

from types import SimpleNamespace

import pytest
import torch
from tiny_runs import Run
from torch.optim.lr_scheduler import OneCycleLR
from transformers import get_scheduler

from atmanrl.errors import UserError
from atmanrl.grpo import GRPOModule, WarmupSchedule
from atmanrl.models.policy import Policy


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_transformers(shape):
    rates = []
    for make in (
        lambda o: WarmupSchedule(o, shape, 3, 10),
        lambda o: get_scheduler(f"{shape}_with_warmup" if shape == "constant" else shape, o, 3, 10),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        schedule, found = make(optimizer), []
        for _ in range(11):  # beyond its end the cosine of transformers rises again
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append(found)
    assert rates[0] == pytest.approx(rates[1], abs=1e-12)


def test_a_fall_may_end_above_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupSchedule(optimizer, "linear", 0, 4, min_ratio=0.2)
    assert [schedule.ratio(update) for update in (0, 2, 4, 9)] == pytest.approx([1, 0.6, 0.2, 0.2])


def test_a_schedule_goes_on_with_the_options_of_its_run():
    """A longer run, say: its fall ends later."""
    schedules = [WarmupSchedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), "linear", 0, total) for total in (4, 8)]
    for _ in range(2):
        schedules[0].optimizer.step()
        schedules[0].step()
    schedules[1].load_state_dict(schedules[0].state_dict())
    assert (schedules[1].last_epoch, schedules[1].total_updates) == (2, 8)
    schedules[1].optimizer.step()
    schedules[1].step()
    assert schedules[1].get_last_lr() == [1 - 3 / 8]


def test_a_schedule_steps_once_an_update_and_ends_with_the_run(tiny_folder):
    seen = []

    class Watched(WarmupSchedule):
        def step(self, epoch=None):
            seen.append(self.optimizer.param_groups[0]["lr"])
            super().step(epoch)

    run = Run(tiny_folder, updates=4, lr=1.0, lr_scheduler=lambda o: Watched(o, "linear"))
    assert run.steps == 16 and seen == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.25])  # the first as it is made
    assert run.logged["lr"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    "wrong",
    [{"shape": "square"}, {"warmup_updates": -1}, {"warmup_updates": 5, "total_updates": 5}, {"min_ratio": 2.0}],
)
def test_schedules_that_cannot_be(wrong):
    with pytest.raises(UserError, match="model.lr_scheduler"):
        WarmupSchedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), **wrong)


def test_a_schedule_that_waits_for_a_figure_is_refused(tiny_folder):
    with pytest.raises(UserError, match="ReduceLROnPlateau"):
        Run(tiny_folder, updates=1, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, r"model\.optimizer .*Invalid learning rate: -1"),
        ({"lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR}, r"model\.lr_scheduler .*T_max"),
        ({"lr_scheduler": lambda o: OneCycleLR(o, 1.0, 1)}, r"model\.lr_scheduler .*step 2 times"),
    ],
)
def test_what_an_optimizer_or_a_schedule_refuses_is_named(tiny_folder, options, said):
    with pytest.raises(UserError, match=said):
        Run(tiny_folder, updates=2, **options)


def test_an_optimizer_that_asks_for_the_loss_again_is_refused():
    module = GRPOModule(Policy("nowhere"), optimizer=lambda _: torch.optim.LBFGS([torch.zeros(1, requires_grad=True)]))
    module.policy, module._trainer = torch.nn.Identity(), SimpleNamespace(precision="32-true")
    with pytest.raises(UserError, match=r"model\.optimizer .*LBFGS"):
        module.configure_optimizers()
