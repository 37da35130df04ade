"""`trainer.deterministic: true` on CUDA: an update computes nothing that has no deterministic kernel there."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atmanrl.grpo import ClippedLoss, LossInputs, MinibatchCounts
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import AdaptiveSolver
from atmanrl.rollouts import Completion, Rollout, RolloutBatch, split
from atmanrl.rollouts.sampling import sample
from atmanrl.rollouts.seeds import by_blocks, uniforms
from atmanrl.rollouts.truncation import Truncation
from atmanrl.tasks import Problem

REFUSED = {
    "cumsum", "cumprod", "cumsum_", "logcumsumexp", "kthvalue", "median", "nanmedian", "histc", "put", "put_",
    "nll_loss2d_forward", "_embedding_bag", "bincount", "scatter_reduce", "scatter_reduce_",
}  # fmt: skip
"""What `torch.use_deterministic_algorithms` refuses on CUDA for floating-point numbers, of what a text model could use."""


class Refusals(TorchDispatchMode):
    """Notes which operations are computed that CUDA would refuse, in forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.refused: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.add(name)
        if name in REFUSED and any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args):
            self.refused.add(name)
        return func(*args, **(kwargs or {}))


def rollout(policy: Policy, number: int) -> Rollout:
    ids = [*policy.tokenizer(f"so {number} + 4 = {number + 4}. ##### {number}").input_ids, policy.eos_ids[0]]
    problem = Problem(str(number), "q", "5")
    prompt = policy.tokenizer(f"What is {number} + 4?").input_ids
    return Rollout(
        problem, 0, number, "q", prompt, Completion(ids, [-6.6] * len(ids), True), split(policy.tokenizer, ids)
    )


@pytest.mark.parametrize("truncation", [Truncation(), Truncation(top_k=20, top_p=0.9, min_p=0.01)])
def test_sampling(tiny_policy, truncation):
    uniform = torch.stack([uniforms(0, "train", 0, 0, s, 5) for s in range(2)])[None]
    with Refusals() as found:
        sample(tiny_policy, [tiny_policy.tokenizer("What is 3 + 4?").input_ids], uniform, truncation=truncation)
    assert "inverse_cdf" in found.seen and not found.refused


def test_what_draws_a_token():
    """An operation of our own, whose parts are not seen from outside."""
    with Refusals() as found:
        by_blocks(torch.rand(2, 1000), torch.rand(2, dtype=torch.float64))
    assert {"searchsorted", "cumsum"} <= found.seen and not found.refused


@pytest.mark.parametrize("backend", ["lean", "eager", "sdpa"])
def test_the_probe(tiny_policy, backend):
    batch = RolloutBatch([rollout(tiny_policy, n) for n in (3, 14)], 2)
    with Refusals() as found:
        MaskProbe(solver=AdaptiveSolver(tolerance=0.3), attention=backend).solve(tiny_policy, batch)
    assert "masked_scatter" in found.seen and not found.refused


@pytest.mark.parametrize("share_prompts", [True, False])
def test_an_update(tiny_policy, share_prompts):
    batch = RolloutBatch([rollout(tiny_policy, n) for n in (3, 14)], 2)
    with Refusals() as found:
        for part in Scorer(tiny_policy, 1.0, 1000, share_prompts).parts(batch, [0, 1]):
            old = part.logprobs.detach()
            inputs = LossInputs(
                part.logprobs,
                old,
                None,
                torch.tensor([1.0, -1.0]),
                part.completion_mask,
                part.entropy,
                MinibatchCounts(2, 17, 20),
            )
            ClippedLoss()(inputs).loss.backward()
    assert "scatter_add_" in found.seen and not found.refused
