"""The reference that `beta` holds the policy to: in the loss, and over a restart."""

import pytest
import torch
from lightning import Trainer
from tiny_runs import Feed, Fixed, Lottery, Run

from atmanrl.callbacks import RunCheckpoint
from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule, WarmupSchedule
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.policy import LoRA, Policy


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
