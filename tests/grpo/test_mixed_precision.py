"""What a run of mixed precision holds in memory, and which numbers it compares: a `Trainer` on one device."""

import pytest
import torch
from tiny_runs import Feed, Lottery, Run

from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import PaperSolver
from atmanrl.rewards import SaliencyReward


class Seeing(Feed):
    """Notes the policy that samples."""

    def answer(self, policy, *args):
        self.seen = [*getattr(self, "seen", []), glance(policy, self.trainer.lightning_module.own)]
        return super().answer(policy, *args)


class SeeingProbe(SaliencyReward):
    """Notes the policy that is probed."""

    def __call__(self, batch, policy):
        self.seen = [*getattr(self, "seen", []), glance(policy, self.own)]
        return super().__call__(batch, policy)


def glance(policy, own) -> dict:
    return {
        "own": policy.model is own,
        "kinds": {weight.dtype for weight in policy.model.parameters()},
        "gradients": [weight.grad for weight in own.parameters() if weight.grad is not None],
    }


def run(
    folder, precision: str, strategy="auto", written=True, dtype="float32", **options
) -> tuple[Run, Seeing, SeeingProbe]:
    probe = SeeingProbe(probe=MaskProbe(solver=PaperSolver(steps=2, lr=1e-2)))
    feed = Seeing(written)
    found = Run(folder, updates=0, feed=feed, rewards={"lottery": Lottery(), "saliency": probe}, **options)
    found.module.policy.dtype_name = dtype
    found.module.policy.build()
    found.module.own = probe.own = found.module.policy.model
    found.fit(2, precision=precision, strategy=strategy)
    return found, feed, probe


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_no_gradient_is_held_while_rollouts_are_sampled_and_probed(tiny_folder, precision):
    found, feed, probe = run(tiny_folder, precision, evaluate_all_rewards=True)
    found.evaluate()
    assert len(feed.seen) >= 4 and len(probe.seen) >= 4 and found.steps > 4
    assert not any(seen["gradients"] for seen in (*feed.seen, *probe.seen))
    assert found.weights.isfinite().all()


@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_mixed_precision_samples_and_probes_a_copy_in_bf16(tiny_folder, strategy):
    try:
        found, feed, probe = run(tiny_folder, "bf16-mixed", strategy, evaluate_all_rewards=True)
        found.evaluate()
    finally:
        if strategy == "fsdp2":
            torch.distributed.destroy_process_group()
    for seen in (*feed.seen, *probe.seen):
        assert seen["kinds"] == {torch.bfloat16} and not seen["own"]
    assert found.module.policy.model is found.module.own
    assert {weight.dtype for weight in found.module.policy.parameters()} == {torch.float32}


def test_full_precision_samples_and_probes_the_weights_themselves(tiny_folder):
    _, feed, probe = run(tiny_folder, "32-true")
    assert all(seen["own"] for seen in (*feed.seen, *probe.seen))


@pytest.mark.parametrize(("precision", "dtype", "rescores"), [
    ("32-true", "float32", False), ("bf16-mixed", "float32", True), ("32-true", "bfloat16", True),
])  # fmt: skip
def test_old_logprobs_are_the_samplers_only_where_those_are_exact(tiny_folder, precision, dtype, rescores):
    """With nothing learnt in between, ratios to the old policy must be 1: what is compared must be computed alike."""
    options = {"num_iterations": 1, "minibatch_queries": 3, "lr": 0.0}
    found, feed, _ = run(tiny_folder, precision, written=False, dtype=dtype, **options)
    asked = []
    found.module.scorer.logprobs = lambda batch: asked.append(batch) or [torch.zeros(1)] * len(batch)
    found.module.scorer.old_logprobs(feed.given[0])
    assert bool(asked) == rescores
    assert found.logged["loss"] == pytest.approx(0, abs=1e-6)
    assert found.logged["clip_ratio/region_mean"] == 0
