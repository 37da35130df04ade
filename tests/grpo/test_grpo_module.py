"""`GRPOModule` in a plain Trainer: updates, optimizer steps, gradients, logs and evaluation."""

import math

import pytest
import torch
from tiny_runs import GROUP, QUERIES, Feed, Lottery, Run

from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import AdaptiveSolver
from atmanrl.rewards import OutcomeReward, SaliencyReward


@pytest.mark.parametrize(("iterations", "minibatch", "per_update"), [(1, 3, 1), (2, 2, 4), (3, 1, 9), (1, 8, 1)])
def test_global_step_counts_updates_whatever_the_optimizer_steps(tiny_folder, start, iterations, minibatch, per_update):
    run = Run(tiny_folder, num_iterations=iterations, minibatch_queries=minibatch)
    assert run.trainer.global_step == len(run.feed.given) == 2 and run.steps == 2 * per_update
    assert not torch.equal(run.weights, start) and run.weights.isfinite().all()
    assert run.module.tokens_seen == run.logged["num_tokens"]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_an_update_follows_the_objective(tiny_folder, tiny_policy, monkeypatch, loss_type):
    """Against a loop over single rollouts, Eq. 5 written out: two passes of two minibatches, ratios clipped on the way."""
    orders, step = [], GRPOModule._optimizer_step
    monkeypatch.setattr(
        GRPOModule, "_optimizer_step", lambda m, e, rows, *x, **k: orders.append(rows) or step(m, e, rows, *x, **k)
    )
    options = {"loss": ClippedLoss(0.02, 0.1, loss_type), "max_grad_norm": None}
    run = Run(tiny_folder, updates=1, feed=Feed(temperature=0.7), **options)
    (batch,) = run.feed.given
    values = [r.rewards["lottery"] for r in batch.rollouts]
    norms, clipped = [], 0
    for rows in orders:
        tokens = sum(len(batch.rollouts[i].completion.ids) for i in rows)
        loss = torch.zeros((), dtype=torch.float64)
        for i in rows:
            ids, prompt = batch.rollouts[i].completion.ids, batch.rollouts[i].prompt_ids
            group = values[i // GROUP * GROUP : i // GROUP * GROUP + GROUP]
            advantage = values[i] - sum(group) / GROUP
            scores = (tiny_policy.model(input_ids=torch.tensor([prompt + ids])).logits[0] / 0.7).log_softmax(-1)
            for t, (token, old) in enumerate(zip(ids, batch.rollouts[i].completion.logprobs, strict=True)):
                ratio = (scores[len(prompt) - 1 + t, token] - old).exp()
                inside = ratio.clamp(0.98, 1.1)
                divide_by = {"grpo": len(ids) * len(rows), "dapo": tokens, "dr_grpo": len(rows) * 6}[loss_type]
                loss = loss - torch.minimum(ratio * advantage, inside * advantage) / divide_by
                clipped += bool(inside * advantage < ratio * advantage)
        tiny_policy.zero_grad()
        loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in tiny_policy.parameters()]).norm()))
        with torch.no_grad():
            for parameter in tiny_policy.parameters():
                parameter -= parameter.grad
    expected = torch.cat([p.detach().flatten() for p in tiny_policy.parameters()])
    assert len(orders) == 4 and clipped > 3
    assert torch.allclose(run.weights, expected, rtol=0, atol=1e-6)
    assert run.logged["grad_norm"] == pytest.approx(sum(norms) / 4, rel=1e-5)
    assert run.logged["clip_ratio/region_mean"] == pytest.approx(
        clipped / 2 / sum(len(r.completion.ids) for r in batch.rollouts)
    )


def test_gradients_are_clipped(tiny_folder, start):
    run = Run(tiny_folder, updates=1, num_iterations=1, minibatch_queries=QUERIES, max_grad_norm=0.01, lr=1.0)
    assert run.logged["grad_norm"] > 0.02  # as it was before
    assert float((run.weights - start).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": ClippedLoss(loss_type="dapo")},
        {"loss": ClippedLoss(importance_sampling_level="sequence"), "rescore": True},
    ],
)
def test_parts_of_a_minibatch_change_nothing(tiny_folder, start, options):
    few, many = (Run(tiny_folder, micro_batch_tokens=tokens, **options) for tokens in (100_000, 1))
    assert torch.allclose(few.weights, many.weights, rtol=0, atol=1e-10) and not torch.equal(few.weights, start)
    clock = ("step_time", "time/rollout", "time/reward", "time/update")
    logged = [{k: v for k, v in run.logged.items() if k not in clock} for run in (few, many)]
    assert logged[0] == pytest.approx(logged[1], abs=1e-6)


def test_rescoring_gives_the_samplers_logprobs(tiny_folder):
    run = Run(tiny_folder, updates=1, lr=0.0, rescore=True, micro_batch_tokens=300, feed=Feed(temperature=0.6))
    problems = list(enumerate(run.feed.task.problems("train")))[:3]
    batch = run.feed.answer(run.module.policy, problems, "train", 0, 4)
    rescored = run.module.scorer.old_logprobs(batch, run.module.rescore)
    run.module.rescore = None
    sampled = run.module.scorer.old_logprobs(batch, run.module.rescore)
    assert rescored[0].dtype == torch.float64 and sampled[0].dtype == torch.float32
    for new, old, rollout in zip(rescored, sampled, batch.rollouts, strict=True):
        assert len(new) == len(old) == len(rollout.completion.ids)
        assert torch.allclose(new.float(), old, atol=2e-6)
    run.module.policy.computed_in = torch.bfloat16  # there the sampler's own would be too coarse
    assert torch.equal(run.module.scorer.old_logprobs(batch, run.module.rescore)[0], rescored[0])
    run.module.rescore = False
    assert torch.equal(run.module.scorer.old_logprobs(batch, run.module.rescore)[0], sampled[0])


def test_logs_have_the_names_that_trl_has(tiny_folder):
    logged = Run(tiny_folder, updates=1).logged
    names = (
        "reward reward_std frac_reward_zero_std rewards/lottery/mean rewards/lottery/std entropy num_tokens step_time"
    )
    names += (
        " completions/mean_length completions/min_length completions/max_length completions/clipped_ratio grad_norm"
    )
    names += " clip_ratio/low_mean clip_ratio/high_mean clip_ratio/region_mean cot/mean_length loss lr"
    assert not set(names.split()) - set(logged) and all(map(math.isfinite, logged.values()))
    assert 0 < logged["entropy"] < math.log(768) and logged["completions/max_length"] <= 6
    assert logged["reward"] == logged["rewards/lottery/mean"] and logged["rewards/lottery/group_std"] > 0


def test_equal_rewards_leave_the_policy_alone(tiny_folder, start):
    run = Run(tiny_folder, rewards=None)
    assert list(run.module.rewards) == ["outcome"] and run.steps == 8
    assert torch.equal(run.weights, start)
    assert run.logged["grad_norm"] == 0 == run.logged["loss"] and run.logged["reward"] == -1
    assert run.logged["frac_reward_zero_std"] == 1


def test_validation_is_the_same_each_time(tiny_folder, start):
    run = Run(tiny_folder, updates=1, lr=0.0, rewards={"lottery": Lottery(), "outcome": OutcomeReward()})
    run.feed.given.clear()
    first, second = run.evaluate(), run.evaluate()
    assert first == second and first["val/pass_at_1"] == first["val/pass_at_2"] == 0
    rollouts = [r for b in run.feed.given[:2] for r in b.rollouts]  # batches of three problems and of one
    mean = sum(r.rewards["lottery"] for r in rollouts) / len(rollouts)
    assert len(rollouts) == 8 and first["val/rewards/lottery/mean"] == pytest.approx(mean)
    assert first["val/rewards/outcome/mean"] == -1 and torch.equal(run.weights, start)


def test_saliency_in_training_and_in_validation(tiny_folder, start):
    def rewards():
        return {
            "outcome": OutcomeReward(),
            "saliency": SaliencyReward(probe=MaskProbe(solver=AdaptiveSolver(steps=20))),
        }

    run = Run(tiny_folder, feed=Feed(written=True), rewards=rewards(), rescore=True, evaluate_all_rewards=True)
    for batch in run.feed.given:
        for i, rollout in enumerate(batch.rollouts):
            assert math.isnan(rollout.rewards["saliency"]) == (i % GROUP == 0) == (rollout.saliency is None)
    assert run.logged["rewards/saliency/abstained"] == 1 / GROUP and run.logged["probe/gradients"] > 1
    assert not torch.equal(run.weights, start)
    assert all(p.requires_grad for p in run.module.policy.parameters())
    metrics = run.evaluate()
    assert 0 < abs(metrics["val/rewards/saliency/mean"]) < 1 and metrics["val/pass_at_1"] > 0
    assert metrics["val/probe/loss_final"] < metrics["val/probe/loss_initial"]
    run.module.evaluate_all_rewards = False
    assert "val/rewards/saliency/mean" not in run.evaluate()


def test_prediction_returns_rollouts_with_every_reward(tiny_folder):
    run = Run(tiny_folder, updates=0)
    (rollouts,) = run.trainer.predict(run.module, run.feed)
    assert len(rollouts) == 6 and all(set(r.rewards) == {"lottery"} for r in rollouts)


@pytest.mark.parametrize("wrong", [{"num_iterations": 0}, {"minibatch_queries": 0}, {"micro_batch_tokens": 0},
                                   {"scale_rewards_floor": math.inf}])  # fmt: skip
def test_wrong_options(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        GRPOModule(Policy("nowhere"), **wrong)
