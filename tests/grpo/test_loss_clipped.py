"""The clipped objective against a plain loop in float64, and what its gradient must be."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, LossInputs, MinibatchCounts
from atmanrl.grpo.loss_clipped import LOG_RATIO_LIMIT, kl_estimate

LENGTHS, WIDTH, MAX_LENGTH = [7, 1, 4, 9, 3, 9], 9, 20
TYPES = pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
LEVELS = pytest.mark.parametrize("level", ["token", "sequence"])
HIGHS = pytest.mark.parametrize("high", [None, 0.28])


@pytest.fixture
def tensors() -> SimpleNamespace:
    """Ratios in and out of the clip range with advantages of both signs, some of them zero."""
    generator = torch.Generator().manual_seed(0)
    size = (len(LENGTHS), WIDTH)
    mask = torch.arange(WIDTH)[None] < torch.tensor(LENGTHS)[:, None]
    old = -3 * torch.rand(size, generator=generator, dtype=torch.float64)
    drift = torch.randn(len(LENGTHS), 1, generator=generator, dtype=torch.float64) * 0.4
    logprobs = old + drift + 0.3 * torch.randn(size, generator=generator, dtype=torch.float64)
    advantages = torch.tensor([0.5, -1.0, 1.5, -0.7, 0.0, 2.0], dtype=torch.float64)
    # padding holds rubbish, and nothing that it says may matter
    return SimpleNamespace(mask=mask, old=old, logprobs=logprobs.requires_grad_(), advantages=advantages)


def inputs(t: SimpleNamespace, rows: slice = slice(None), reference: torch.Tensor | None = None) -> LossInputs:
    counts = MinibatchCounts(len(LENGTHS), sum(LENGTHS), MAX_LENGTH)
    given = [t.logprobs, t.old, t.advantages, t.mask, torch.zeros_like(t.old)]
    logprobs, old, advantages, mask, entropy = (tensor[rows] for tensor in given)
    return LossInputs(logprobs, old, reference, advantages, mask, entropy, counts)


def ours(t: SimpleNamespace, kind: str, level: str, high: float | None, rows: slice = slice(None)):
    return ClippedLoss(0.2, high, kind, level)(inputs(t, rows))


def by_hand(t: SimpleNamespace, kind: str, level: str, high: float) -> float:
    total = 0.0
    for row, length in enumerate(LENGTHS):
        logs = [float((t.logprobs.detach() - t.old)[row, i]) for i in range(length)]
        if level == "sequence":
            logs = [sum(logs) / length] * length
        a = float(t.advantages[row])
        gains = [min(math.exp(x) * a, min(max(math.exp(x), 0.8), 1 + high) * a) for x in logs]
        total -= sum(gains) / length if kind == "grpo" else sum(gains)
    return total / {"grpo": len(LENGTHS), "dapo": sum(LENGTHS), "dr_grpo": len(LENGTHS) * MAX_LENGTH}[kind]


@TYPES
@LEVELS
@HIGHS
def test_against_a_loop(tensors, kind, level, high):
    assert ours(tensors, kind, level, high).loss.item() == pytest.approx(by_hand(tensors, kind, level, high or 0.2))


@TYPES
@LEVELS
def test_parts_add_up_to_the_minibatch(tensors, kind, level):
    parts = [ours(tensors, kind, level, None, rows).loss for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert sum(parts).item() == pytest.approx(ours(tensors, kind, level, None).loss.item(), rel=1e-12)


def test_the_gradient_at_the_first_step_is_that_of_the_policy_gradient(tensors):
    """With a ratio of 1 nothing is clipped, and d loss / d logprob = -A / (length x sequences)."""
    tensors.logprobs = tensors.old.clone().requires_grad_()
    result = ours(tensors, "grpo", "token", None)
    result.loss.backward()
    expected = -tensors.advantages[:, None] * tensors.mask / torch.tensor(LENGTHS)[:, None] / len(LENGTHS)
    assert torch.allclose(tensors.logprobs.grad, expected, atol=1e-15)
    assert not result.metrics["clip_ratio/region_mean"].any()


def test_clipped_tokens_have_no_gradient_and_the_others_do(tensors):
    result = ours(tensors, "dapo", "token", None)
    result.loss.backward()
    clipped = result.metrics["clip_ratio/region_mean"]
    assert clipped.any() and not tensors.logprobs.grad[clipped].any()
    moved = tensors.mask & ~clipped & (tensors.advantages != 0)[:, None]
    assert tensors.logprobs.grad[moved].all() and not tensors.logprobs.grad[~tensors.mask].any()


def test_a_ratio_beyond_float_stays_finite():
    far, mask = torch.tensor([[-1.0, 0.0]], requires_grad=True), torch.tensor([[True, False]])
    old, counts = torch.full((1, 2), -2000.0), MinibatchCounts(1, 1, 20)
    result = ClippedLoss()(LossInputs(far, old, None, torch.tensor([-1.0]), mask, old, counts))
    result.loss.backward()
    assert result.loss.item() == pytest.approx(math.exp(LOG_RATIO_LIMIT), rel=1e-6) and far.grad.isfinite().all()


def test_a_completion_without_tokens_adds_nothing(tensors):
    loss = ours(tensors, "grpo", "sequence", None, slice(0, 3)).loss
    tensors.mask[2] = False
    shorter = ours(tensors, "grpo", "sequence", None, slice(0, 3)).loss
    assert shorter.isfinite() and shorter.item() == ours(tensors, "grpo", "sequence", None, slice(0, 2)).loss.item()
    assert shorter.item() != loss.item()


def test_kl_estimate_is_the_divergence_on_average():
    """Against the sum over a whole vocabulary: sum p (r - log r - 1) with r = q / p is KL(p || q)."""
    policy, reference = torch.randn(2, 11, dtype=torch.float64).log_softmax(-1)
    values = kl_estimate(policy[None], reference[None], torch.ones(1, 11, dtype=torch.bool))[0]
    assert (values >= 0).all()
    expected = (policy.exp() * (policy - reference)).sum()
    assert float((policy.exp() * values).sum()) == pytest.approx(float(expected), rel=1e-12)


def test_padding_has_no_divergence_and_a_far_reference_stays_finite():
    real = torch.tensor([[True, False]])
    values = kl_estimate(torch.tensor([[-900.0, -900.0]]), torch.zeros(1, 2), real)
    assert values.isfinite().all() and values[0, 1] == 0 and values[0, 0] > 1e6


def test_the_penalty_pulls_towards_the_reference(tensors):
    tensors.advantages = torch.zeros_like(tensors.advantages)
    tensors.logprobs = tensors.old.clone().requires_grad_()
    result = ClippedLoss(beta=0.2, use_bias_correction_kl=False)(inputs(tensors, reference=tensors.old + 0.5))
    result.loss.backward()
    assert (tensors.logprobs.grad[tensors.mask] < 0).all() and result.metrics["kl"].shape == tensors.old.shape


def in_numpy(t: SimpleNamespace, kind: str, level: str, high: float, beta: float, reference: np.ndarray) -> tuple:
    """Loss, its gradient and the clipped tokens, with an advantage for every token, in numpy and float64 throughout."""
    logprobs, old, advantages, mask = (x.detach().numpy() for x in (t.logprobs, t.old, t.advantages, t.mask))
    loss, gradient, clipped = 0.0, np.zeros_like(logprobs), np.zeros_like(mask)
    for row, length in enumerate(LENGTHS):
        real = slice(0, length)
        logs, a = logprobs[row, real] - old[row, real], advantages[row, real]
        ratio = np.exp(logs if level == "token" else np.full(length, logs.mean()))
        bounded = np.clip(ratio, 0.8, 1 + high)
        cut = ((ratio < 0.8) & (a < 0)) | ((ratio > 1 + high) & (a > 0))
        d = reference[row, real] - logprobs[row, real]
        gains = np.minimum(ratio * a, bounded * a) - beta * (np.exp(d) - d - 1)
        weight = 1 / length if kind == "grpo" else 1.0
        slope = np.where(cut, 0.0, ratio * a)  # d (r A) / d log r
        slope = slope if level == "token" else np.full(length, slope.sum() / length)
        loss -= weight * gains.sum()
        gradient[row, real] = -weight * (slope + beta * (np.exp(d) - 1))
        clipped[row, real] = cut
    whole = {"grpo": len(LENGTHS), "dapo": sum(LENGTHS), "dr_grpo": len(LENGTHS) * MAX_LENGTH}[kind]
    return loss / whole, gradient / whole, clipped


@TYPES
@LEVELS
@HIGHS
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_an_advantage_for_every_token_against_numpy(tensors, kind, level, high, beta):
    generator = torch.Generator().manual_seed(1)
    tensors.advantages = torch.randn(tensors.old.shape, generator=generator, dtype=torch.float64)
    reference = tensors.old + 0.4 * torch.randn(tensors.old.shape, generator=generator, dtype=torch.float64)
    result = ClippedLoss(0.2, high, kind, level, beta, False)(inputs(tensors, reference=reference))
    result.loss.backward()
    loss, gradient, clipped = in_numpy(tensors, kind, level, high or 0.2, beta, reference.numpy())
    assert result.loss.item() == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(tensors.logprobs.grad.numpy(), gradient, rtol=1e-10, atol=1e-14)
    assert clipped.any() and np.array_equal(result.metrics["clip_ratio/region_mean"].numpy(), clipped)


@TYPES
@LEVELS
def test_equal_advantages_of_all_tokens_are_the_completions_advantage(tensors, kind, level):
    whole = ours(tensors, kind, level, None).loss
    tensors.advantages = tensors.advantages[:, None].expand_as(tensors.old)
    assert ours(tensors, kind, level, None).loss.item() == whole.item()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0}, {"epsilon": 1.0}, {"epsilon_high": 0.0}, {"beta": -0.1}, {"beta": math.inf},
        {"loss_type": "bnpo"}, {"importance_sampling_level": "word"},
    ],
)  # fmt: skip
def test_wrong_options(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"ClippedLoss: {name} is {value!r}; (give|choose)"):
        ClippedLoss(**wrong)
