"""The clipped objective against TRL's own loss on the same tensors, and against a plain loop in float64."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from atmanrl.grpo.figures import UpdateFigures
from atmanrl.grpo.objective import LOG_RATIO_LIMIT, clipped_objective, normalizer

LENGTHS, WIDTH, MAX_LENGTH = [7, 1, 4, 9, 3, 9], 9, 20
TYPES = pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
LEVELS = pytest.mark.parametrize("level", ["token", "sequence"])
HIGHS = pytest.mark.parametrize("high", [None, 0.28])


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")


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


def theirs(trl, t: SimpleNamespace, kind: str, level: str, high: float | None):
    """`GRPOTrainer._compute_loss` of a trainer that is no more than the options it looks at; and its metrics."""
    metrics = defaultdict(list)
    itself = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (t.logprobs, torch.zeros(t.mask.shape), None),
        loss_type=kind, importance_sampling_level=level, epsilon_low=0.2, epsilon_high=0.2 if high is None else high,
        max_completion_length=MAX_LENGTH, beta=0.0, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        use_vllm=False, aux_loss_enabled=False, _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1,
        args=SimpleNamespace(delta=None, steps_per_generation=1), model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics={"train": metrics},
    )  # fmt: skip
    prompt = torch.ones(len(LENGTHS), 2, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": t.mask.long(), "completion_mask": t.mask.long(),
        "advantages": t.advantages, "old_per_token_logps": t.old, "num_items_in_batch": t.mask.sum(),
    }  # fmt: skip
    return trl.GRPOTrainer._compute_loss(itself, None, inputs), {name: values[0] for name, values in metrics.items()}


@TYPES
@LEVELS
@HIGHS
def test_loss_and_gradient_are_trls(trl, tensors, kind, level, high):
    loss, _ = theirs(trl, tensors, kind, level, high)
    mine = ours(tensors, kind, level, high).loss
    assert mine.item() == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
    gradients = [torch.autograd.grad(value, tensors.logprobs, retain_graph=True)[0] for value in (loss, mine)]
    assert torch.allclose(*gradients, rtol=1e-12, atol=1e-12) and gradients[0].abs().sum() > 0.01


@HIGHS
def test_clip_ratios_are_trls(trl, tensors, high):
    _, expected = theirs(trl, tensors, "grpo", "token", high)
    figures = UpdateFigures()
    figures.add(ours(tensors, "grpo", "token", high), tensors.mask, torch.tensor(0.0))
    figures.add_step(torch.tensor(1.0))
    found = figures.means()
    assert found["clip_ratio/low_mean"] > 0 and found["clip_ratio/high_mean"] > 0
    for name in ("low_mean", "high_mean", "region_mean"):
        assert found[f"clip_ratio/{name}"] == pytest.approx(expected[f"clip_ratio/{name}"], abs=1e-6)


@LEVELS
@HIGHS
def test_the_same_tokens_are_clipped_as_in_trl(trl, tensors, level, high):
    _, expected = theirs(trl, tensors, "grpo", level, high)
    result = ours(tensors, "grpo", level, high)
    for mine, name in ((result.clipped_low, "low_mean"), (result.clipped_high, "high_mean")):
        # TRL counts sequences where the ratio belongs to the sequence
        share = mine.sum() / tensors.mask.sum() if level == "token" else mine.any(1).double().mean()
        assert float(share) == pytest.approx(expected[f"clip_ratio/{name}"], abs=1e-6)
        assert level == "token" or torch.equal(mine, mine.any(1, keepdim=True) & tensors.mask)


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
