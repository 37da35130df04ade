"""Each option of `GRPOModule` in whole runs, by a case that fails if the option did nothing."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from test_grpo_module import GROUP, Feed, Lottery, Run

from atmanrl.__main__ import main
from atmanrl.callbacks import RunCheckpoint
from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule, WarmupSchedule, group_advantages, scoring
from atmanrl.grpo.advantages import learning_groups
from atmanrl.grpo.scoring import Scorer
from atmanrl.grpo.update import minibatches
from atmanrl.models.policy import LoRA, Policy
from atmanrl.rewards import Reward


class Fixed(Reward):
    """The same rewards in every update."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.given = values

    def __call__(self, batch, policy):
        return torch.tensor(self.given)


def scored(run: Run, policy: Policy, batch) -> list[torch.Tensor]:
    return Scorer(policy, run.feed.temperature, 10_000).logprobs(batch)


@pytest.mark.parametrize("corrected", [True, False])
def test_beta_adds_the_divergence_from_the_start(tiny_folder, corrected):
    options = {
        "num_iterations": 1,
        "minibatch_queries": 3,
        "max_grad_norm": None,
        "rewards": {"none": Fixed(*[0.0] * 6)},
    }
    run = Run(tiny_folder, updates=2, loss=ClippedLoss(beta=0.5, use_bias_correction_kl=corrected), **options)
    if not corrected:  # on the reference itself k3 has no gradient: nothing moves
        assert run.logged["kl"] == pytest.approx(0, abs=1e-10) and run.logged["grad_norm"] < 1e-6
        return
    kept = list(run.module.reference.policy.parameters())
    assert kept and not any(p.requires_grad for p in kept)
    run = Run(tiny_folder, updates=2, loss=ClippedLoss(beta=0.5), num_iterations=1, minibatch_queries=3, lr=3.0)
    logged, (batch, _) = run.logged, run.feed.given[::-1]
    assert logged["kl"] > 1e-6  # in the second update, after one step
    start = Policy(str(tiny_folder), dtype="float64").build()
    reference = scored(run, start, batch)
    old = [torch.tensor(r.completion.logprobs, dtype=torch.float64) for r in batch.rollouts]
    d = torch.cat(reference) - torch.cat(old)  # in a first pass the policy is the one that sampled
    assert logged["kl"] == pytest.approx(float((d.exp() - d - 1).mean()), rel=1e-3)


def test_beta_holds_the_policy_back(tiny_folder):
    free, held = (
        Run(tiny_folder, updates=5, loss=ClippedLoss(beta=beta), lr=0.01, max_grad_norm=None) for beta in (1e-9, 10.0)
    )
    assert 0 < held.logged["kl"] < 0.3 * free.logged["kl"]
    assert "kl" not in Run(tiny_folder, updates=1).logged


def test_without_beta_no_reference_is_kept(tiny_folder):
    run = Run(tiny_folder, updates=1)
    assert run.module.reference is None
    models = [m for m in run.module.modules() if type(m) is type(run.module.policy.model)]
    assert len(models) == 1


def fit(folder, updates, root, beta=0.3, ckpt_path=None, lora=None, **options):
    policy = Policy(str(folder), dtype="float64", lora=lora)
    torch.manual_seed(1)  # adapters are drawn
    module = GRPOModule(
        policy, {"lottery": Lottery()}, lambda p: torch.optim.AdamW(p, lr=1e-2), loss=ClippedLoss(beta=beta), **options
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, max_steps=updates, enable_progress_bar=False, default_root_dir=root,
        enable_model_summary=False, limit_val_batches=0, callbacks=[RunCheckpoint(every_n_updates=1)],
    )  # fmt: skip
    trainer.fit(module, Feed(), ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else False)
    return module, trainer


@pytest.mark.parametrize("lora", [None, LoRA(r=4)], ids=["weights", "lora"])
def test_the_reference_and_the_schedule_survive_a_restart(tiny_folder, tmp_path, lora):
    if lora:
        pytest.importorskip("peft")
    options = {"lora": lora, "lr_scheduler": lambda o: WarmupSchedule(o, "cosine", 1, 5)}
    whole, trainer = fit(tiny_folder, 3, tmp_path / "whole", **options)
    fit(tiny_folder, 2, tmp_path / "half", **options)
    path = tmp_path / "half/checkpoints/last.ckpt"
    resumed, again = fit(tiny_folder, 3, tmp_path / "half", ckpt_path=path, **options)
    first, second = (m.policy.model.state_dict() for m in (whole, resumed))
    assert all(torch.equal(w, second[name]) for name, w in first.items())
    figures = [{k: float(v) for k, v in t.callback_metrics.items() if "time" not in k} for t in (trainer, again)]
    assert figures[0] == figures[1] and figures[0]["kl"] > 0 and 0 < figures[0]["lr"] < 1e-2
    stored = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("policy.") for name in stored)
    start = Policy(str(tiny_folder), dtype="float64").build().model.state_dict()
    if lora is None:
        kept = resumed.reference.policy.model.state_dict()
        assert all(torch.equal(w, kept[name]) for name, w in start.items())
        assert any(not torch.equal(w, stored[f"policy.model.{name}"]) for name, w in start.items())
    else:
        assert resumed.reference.policy is None
        ids = torch.arange(3, 15)[None]
        with resumed.reference.of(resumed.policy) as model, torch.no_grad():
            base = model(ids).logits
        expected = Policy(str(tiny_folder), dtype="float64").build().model(ids).logits
        assert torch.equal(base, expected) and not torch.allclose(resumed.policy.model(ids).logits, expected)
        assert all(p.requires_grad for n, p in resumed.policy.model.named_parameters() if "lora_" in n)


def test_a_reference_that_a_restart_could_not_find():
    policy = Policy("experiments/laptop/blank", pretrained=False)
    with pytest.raises(UserError, match=r"policy.pretrained"):
        GRPOModule(policy, loss=ClippedLoss(beta=0.1)).configure_model()


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
    from atmanrl.commands.run import RunCLI

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
