"""Each option of `GRPOModule` in whole runs, by a case that fails if the option did nothing."""

import dataclasses
import math

import pytest
import torch
from conftest import ROOT
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from tiny_runs import Feed, Lottery, Run

from atmanrl.__main__ import main
from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule, WarmupSchedule, scoring
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.policy import Policy


@pytest.mark.parametrize(
    ("options", "shared"), [({}, True), ({"micro_batch_tokens": 1}, True), ({"share_prompts": False}, False)]
)
def test_how_an_update_reads_its_rollouts(tiny_folder, monkeypatch, options, shared):
    read, scores_at = [], scoring.scores_at
    monkeypatch.setattr(scoring, "scores_at", lambda *a, **k: read.append(k) or scores_at(*a, **k))
    Run(tiny_folder, updates=1, num_iterations=1, minibatch_queries=3, **options)
    rows = [len(inputs["input_ids"]) for inputs in read]
    assert sum(rows) == 6 and (max(rows) == 1) == ("micro_batch_tokens" in options)
    assert all(("past_key_values" in inputs) == shared for inputs in read)


class Cut(Feed):
    """The first rollout of each group ends, the others are cut off by the limit."""

    def answer(self, policy, *args):
        batch = super().answer(policy, *args)
        for i, rollout in enumerate(batch.rollouts):
            rollout.completion = dataclasses.replace(rollout.completion, finished=i % batch.group_size == 0)
        return batch


def test_truncated_completions_are_masked(tiny_folder):
    options = {"updates": 1, "lr": 0.0, "num_iterations": 1, "minibatch_queries": 3, "max_grad_norm": None}
    read = []
    parts = Scorer.parts

    def spied(self, batch, rows, model=None):
        read.append(list(rows))
        return parts(self, batch, rows, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "parts", spied)
        masked = Run(tiny_folder, feed=Cut(), loss=ClippedLoss(mask_truncated_completions=True), **options).logged
        plain = Run(tiny_folder, feed=Cut(), **options).logged
    assert sorted(read[0]) == [0, 2, 4] and sorted(read[1]) == list(range(6))  # what teaches nothing is not even read
    assert masked["completions/clipped_ratio"] == 0.5 and masked["reward"] == plain["reward"]
    assert masked["grad_norm"] > 0 and masked["grad_norm"] != pytest.approx(plain["grad_norm"], rel=0.01)


def evaluated(folder, updates: int, **options) -> tuple[Trainer, list[int]]:
    """A run with an evaluation every second update; the updates at which it evaluated."""
    at = []

    class Watched(GRPOModule):
        def on_validation_epoch_end(self):
            at.append(self.trainer.global_step)
            super().on_validation_epoch_end()

    module = Watched(Policy(str(folder)), {"lottery": Lottery()}, lambda p: torch.optim.SGD(p, lr=0.0))
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_steps=updates, val_check_interval=2,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        **options,
    )  # fmt: skip
    trainer.fit(module, Feed(val_problems=2, eval_queries=2))
    return trainer, at


def test_evaluation_every_n_updates_over_the_ends_of_epochs(tiny_folder):
    """Eight problems and three an update: an epoch has two updates."""
    trainer, at = evaluated(tiny_folder, 5)
    assert at == [2, 4] and trainer.global_step == 5 and math.isfinite(trainer.callback_metrics["val/pass_at_1"])


def test_early_stopping_stops(tiny_folder):
    stopping = EarlyStopping("val/pass_at_1", mode="max", patience=2)
    trainer, at = evaluated(tiny_folder, 50, callbacks=[stopping])
    assert at == [2, 4, 6] and trainer.global_step == 6 == stopping.stopped_epoch * 2 + 2
    patient, _ = evaluated(tiny_folder, 8, callbacks=[EarlyStopping("val/pass_at_1", mode="max", patience=9)])
    assert patient.global_step == 8


def test_schedule_and_early_stopping_by_yaml(tiny_folder, tmp_path, monkeypatch):
    from atmanrl.commands.run_cli import RunCLI

    (tmp_path / "more.yaml").write_text("""
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {monitor: val/pass_at_1, mode: max, patience: 5}
model:
  class_path: GRPOModule
  init_args:
    lr_scheduler:
      class_path: WarmupSchedule
      init_args: {shape: cosine, warmup_updates: 10, total_updates: 100}
""")
    made = []
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda self, _: made.append(self))
    laptop, more = ROOT / "configs/laptop.yaml", tmp_path / "more.yaml"
    arguments = ["fit", f"--config={laptop}", f"--config={more}", f"--model.policy.path={tiny_folder}"]
    assert main([*arguments, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 0
    kinds = [type(callback).__name__ for callback in made[0].trainer.callbacks]
    assert "EarlyStopping" in kinds and "EvaluationReport" in kinds
    schedule = made[0].model.lr_scheduler(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    assert isinstance(schedule, WarmupSchedule) and schedule.ratio(55) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale_rewards_floor": -1.0},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": -1.0},
    ],
)
def test_options_that_cannot_be(wrong):
    """A norm of 0 would stop all learning, and one below 0 would climb the loss."""
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"model\.{name} is {value}; give"):
        GRPOModule(Policy("nowhere"), **wrong)
