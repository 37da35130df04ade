"""The probe on the device in every precision, against the CPU in float64."""

import pytest
import torch
from laptop import FOLDER, PRECISIONS, cosine, policy_in, rollouts, targets

from atmanrl import explain
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.probe.attention import attention_hook
from atmanrl.probe.guard import check
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective

pytestmark = pytest.mark.gpu


def gradient(policy, backend: str, equal: bool = False, cached: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """The guard's checks, then losses and gradients of all masks, at values about the paper's start."""
    with frozen(policy.model), attention_hook(policy.model, backend):
        check(policy.model)
        objective = Objective(policy.model, targets(policy, equal), 10.0, policy.pad_id, 10_000, cached)
        drawn = torch.rand(objective.entries.ragged.total, generator=torch.Generator().manual_seed(0))
        values = (-0.3 - 0.2 * drawn).to(policy.device)
        if next(policy.model.parameters()).dtype == torch.float64:
            values = values.double()
        found = objective.evaluate(values, torch.arange(len(objective.targets), device=policy.device))
    assert found.loss.isfinite().all() and found.gradient.isfinite().all()
    return found.loss.cpu(), found.gradient.cpu()


@pytest.fixture(scope="module")
def exact() -> tuple[torch.Tensor, torch.Tensor]:
    with policy_in("float64", torch.device("cpu")) as policy:
        return gradient(policy, "eager", cached=False)


@pytest.fixture(scope="module")
def exact_and_tiny(tiny_folder) -> dict[bool, torch.Tensor]:
    with policy_in("float64", torch.device("cpu"), tiny_folder) as policy:
        return {equal: gradient(policy, "eager", equal, cached=False)[0] for equal in (False, True)}


@pytest.mark.parametrize("backend", ["lean", "eager", "sdpa"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_losses_and_gradients_of_the_masks_are_those_of_float64(device, exact, precision, backend):
    with policy_in(precision, device) as policy:
        loss, found = gradient(policy, backend)
    assert (loss - exact[0]).abs().max() < (1e-3 if precision == "float32" else 0.3)  # of 2 to 11 nats
    assert cosine(found, exact[1]) > 0.999


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "whole"])
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("backend", ["lean", "eager", "sdpa"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_prompts_of_any_length_give_finite_gradients(
    device, tiny_folder, exact_and_tiny, precision, backend, equal, cached
):
    if device.type == "cpu" and not cached and backend != "lean":
        pytest.skip("a CPU has all of them in tests/probe")
    with policy_in(precision, device, tiny_folder) as policy:
        loss, _ = gradient(policy, backend, equal, cached)
    assert ((loss - exact_and_tiny[equal]).abs() / exact_and_tiny[equal]).max() < 0.05


@pytest.mark.parametrize("solver", [PaperSolver(steps=12, lr=3e-2), AdaptiveSolver(steps=40, lr=1e-2)], ids=type)
def test_a_solver_finds_on_the_device_what_it_finds_on_the_cpu(device, solver):
    rewards = []
    for where in (device, torch.device("cpu")):
        with policy_in("float32", where) as policy:
            result = MaskProbe(solver=solver).solve(policy, rollouts(policy, 3, 1))
        rewards.append(result.reward.cpu())
        assert result.loss_final.mean() < result.loss_initial.mean()
    assert (rewards[0] - rewards[1]).abs().max() < 1e-3


def test_explain_runs_where_it_is_told_to(device):
    asked = {"solver": PaperSolver(steps=3), "device": str(device)}
    texts = ("What is 3 + 4?", " 3 + 4 = 7.", "7")
    found = explain(str(FOLDER), None, *texts, **asked)
    there = explain(str(FOLDER), None, *texts, solver=PaperSolver(steps=3), device="cpu", dtype="float64")
    assert found.loss_initial == pytest.approx(there.loss_initial, abs=0.1)
    assert found.mask.device.type == "cpu"


SHAPES = [(6, 2, 70, 133, 64), (4, 4, 5, 46, 16), (3, 1, 130, 200, 80), (24, 8, 64, 128, 128)]
"""Heads, heads of keys, rows, keys, and numbers of a head."""


@pytest.mark.parametrize("past", [0, 41])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_fused_kernels_give_the_attention_and_the_gradients_of_float64(device, dtype, shape, past):
    heads, groups, rows, keys, width = shape
    if device.type == "cpu":
        pytest.skip("the kernels need a CUDA device")
    fused = pytest.importorskip("atmanrl.probe.fused")
    draw = torch.Generator(device).manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=draw, device=device)

    # heads stand behind rows, as a projection leaves them; some keys are hidden, and a row of padding sees none
    query, key = drawn(2, rows, heads, width).transpose(1, 2).to(dtype), drawn(2, groups, keys, width).to(dtype)
    value = drawn(2, keys, groups, width).transpose(1, 2).to(dtype)
    hidden = torch.ones(rows, keys, dtype=torch.bool, device=device).triu(keys - rows + 1)
    bias = (drawn(2, 1, rows, keys) - 2).masked_fill(hidden, torch.finfo(torch.float32).min)
    bias[0, 0, 1], weights = -torch.inf, drawn(2, heads, rows, width)
    weights[0, :, 1] = 0
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, bias)]
    out = fused.FusedAttention.apply(*inputs, width**-0.5, past)
    gradients = torch.autograd.grad((out.float() * weights).sum(), inputs)

    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    keys_of_heads, values_of_heads = (tensor.repeat_interleave(heads // groups, 1) for tensor in exact[1:3])
    scores = (exact[0] @ keys_of_heads.transpose(2, 3) * width**-0.5 + exact[3]).clamp(min=-3.4e38)
    expected = scores.softmax(-1) @ values_of_heads
    references = torch.autograd.grad((expected * weights.double()).sum(), exact)
    assert (out.double() - expected).norm() / expected.norm() < 0.005
    for name, ours, reference in zip(("query", "key", "value", "bias"), gradients, references, strict=True):
        columns = slice(past, None)
        if name in ("key", "value"):
            assert not ours[:, :, :past].any()
            ours, reference = ours[:, :, columns], reference[:, :, columns]
        elif name == "bias":
            assert not ours[..., :past].any()
            ours, reference = ours[..., columns], reference[..., columns]
        assert (ours.double() - reference).norm() / reference.norm() < 0.01, name
    again = torch.autograd.grad(
        (fused.FusedAttention.apply(*inputs, width**-0.5, past).float() * weights).sum(), inputs
    )
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


def test_in_half_precision_a_gradient_on_a_gpu_takes_the_fused_kernels(device, monkeypatch):
    if device.type == "cpu":
        pytest.skip("the kernels need a CUDA device")
    fused, calls = pytest.importorskip("atmanrl.probe.fused"), []
    own = fused.FusedAttention.apply
    monkeypatch.setattr(fused.FusedAttention, "apply", lambda *inputs: calls.append(1) or own(*inputs))
    with policy_in("bfloat16", device) as policy:
        gradient(policy, "lean")
    assert calls
