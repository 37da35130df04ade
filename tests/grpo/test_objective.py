"""The clipped objective against a plain loop in float64, and what its gradient must be."""

import math
from types import SimpleNamespace

import pytest
import torch

from atmanrl.grpo.objective import LOG_RATIO_LIMIT, clipped_objective, kl_estimate, normalizer

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


def ours(t: SimpleNamespace, kind: str, level: str, high: float | None, rows: slice = slice(None)):
    divide_by = normalizer(kind, len(LENGTHS), sum(LENGTHS), MAX_LENGTH)
    return clipped_objective(
        t.logprobs[rows], t.old[rows], t.advantages[rows], t.mask[rows], divide_by, 0.2, high, kind, level
    )


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
    assert not result.clipped_low.any() and not result.clipped_high.any()


def test_clipped_tokens_have_no_gradient_and_the_others_do(tensors):
    result = ours(tensors, "dapo", "token", None)
    result.loss.backward()
    clipped = result.clipped_low | result.clipped_high
    assert clipped.any() and not tensors.logprobs.grad[clipped].any()
    moved = tensors.mask & ~clipped & (tensors.advantages != 0)[:, None]
    assert tensors.logprobs.grad[moved].all() and not tensors.logprobs.grad[~tensors.mask].any()


def test_a_ratio_beyond_float_stays_finite():
    far = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    result = clipped_objective(far, torch.tensor([[-2000.0, -2000.0]]), torch.tensor([-1.0]), far.detach() < 1, 1.0)
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
    reference = tensors.logprobs.detach() + 0.5
    none = torch.zeros_like(tensors.advantages)
    tensors.logprobs = tensors.old.clone().requires_grad_()
    result = clipped_objective(
        tensors.logprobs, tensors.old, none, tensors.mask, 1.0, reference=tensors.old + 0.5, beta=0.2,
        use_bias_correction_kl=False,
    )  # fmt: skip
    result.loss.backward()
    assert (tensors.logprobs.grad[tensors.mask] < 0).all() and reference.shape == result.kl.shape
