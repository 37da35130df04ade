"""AdamW's steps between gradients: by operations, by numba's kernel, and by `torch.optim.AdamW`."""

import numpy as np
import pytest
import torch

from atmanrl.errors import UserError
from atmanrl.probe import AdaptiveSolver
from atmanrl.probe.ragged import Ragged
from atmanrl.probe.solvers import walk as walks
from atmanrl.probe.solvers.extrapolation import GradientSample, extrapolate
from atmanrl.probe.solvers.walk import State, Walk

C = -0.0005
"""So near to 0 that values cross it, where the penalty ends."""
SIZES = (300, 0, 1, 40)
COUNTS = torch.tensor([7, 3, 40, 12])


def begun(dtype: torch.dtype) -> tuple[State, GradientSample, GradientSample]:
    """Four targets under way, one without a value and one larger than a block, and two samples of their gradients."""
    drawn = torch.Generator().manual_seed(0)

    def numbers(size: float) -> torch.Tensor:
        return size * torch.randn(sum(SIZES), generator=drawn, dtype=torch.float64).to(dtype)

    step = torch.tensor([0, 9, 30, 12])
    state = State(numbers(0.001) + C, numbers(1e-4), numbers(1e-5) ** 2, step.clone())
    odds = torch.randn(2, len(SIZES), 2, generator=drawn)
    lengths = torch.full((len(SIZES),), 2)
    last, new = (GradientSample(numbers(1e-3), odds[k], lengths, step - 5 * (1 - k)) for k in range(2))
    return state, last, new


def walked(solver: AdaptiveSolver, dtype: torch.dtype, device: str = "cpu") -> State:
    state, last, new = ([each.to(device) for each in vars(part).values()] for part in begun(dtype))
    state = State(*state)
    solver.walk(
        state,
        GradientSample(*last),
        GradientSample(*new),
        COUNTS.to(device),
        Ragged(torch.tensor(SIZES, device=device)),
        C,
    )
    return state


def same(found: State, expected: State) -> None:
    """Equal but for rounding, of 40 steps of about 0.001."""
    eps = torch.finfo(expected.values.dtype).eps
    assert (found.values.cpu() - expected.values).abs().max() < 40 * 0.001 * 16 * eps
    torch.testing.assert_close(found.m.cpu(), expected.m, rtol=1e3 * eps, atol=1e-4 * 1e2 * eps)
    torch.testing.assert_close(found.v.cpu(), expected.v, rtol=1e3 * eps, atol=0)
    assert found.step.tolist() == expected.step.tolist()


@pytest.mark.parametrize("sparsity", [0.0, 0.01])
def test_the_steps_are_those_of_adamw(sparsity):
    solver = AdaptiveSolver(sparsity=sparsity)
    found, (state, last, new) = walked(solver, torch.float64), begun(torch.float64)
    turn, ends = new.direction - last.direction, np.cumsum(SIZES)
    for k, (size, end) in enumerate(zip(SIZES, ends, strict=True)):
        here = slice(end - size, end)
        values = state.values[here].clone().requires_grad_()
        optimizer = torch.optim.AdamW([values], solver.lr, solver.betas, solver.eps, solver.weight_decay)
        moments = {"exp_avg": state.m[here].clone(), "exp_avg_sq": state.v[here].clone()}
        optimizer.state[values] = {"step": torch.tensor(float(state.step[k])), **moments}
        for step in range(int(state.step[k]), int(state.step[k] + COUNTS[k])):
            of_direction, beyond = extrapolate(last, new, torch.full((1, len(SIZES)), step))
            values.grad = -of_direction[0, k] * (new.direction[here] + beyond[0, k] * turn[here])
            values.grad += sparsity / (-C * max(size, 1)) * (values.detach() < 0).double()
            optimizer.step()
        torch.testing.assert_close(found.values[here], values.detach(), rtol=0, atol=1e-15)
        assert found.step[k] == state.step[k] + COUNTS[k]
    crossed = (found.values > 0) != (state.values > 0)
    assert crossed.sum() > 10  # else the end of the penalty was not tried


@pytest.mark.parametrize("sparsity", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_of_numba_takes_the_same_steps(dtype, sparsity):
    pytest.importorskip("numba")
    same(
        walked(AdaptiveSolver(compiled=True, sparsity=sparsity), dtype),
        walked(AdaptiveSolver(sparsity=sparsity), dtype),
    )


def test_machine_code_that_cannot_be_kept_is_made_anew(monkeypatch):
    numba = pytest.importorskip("numba")
    from atmanrl.probe.solvers import walk_numba

    real, asked = numba.njit, []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert walk_numba._compiled(lambda x: x + 1)(1) == 2 and asked == [True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("sparsity", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_on_the_device_takes_the_same_steps(device, dtype, sparsity):
    found = walked(AdaptiveSolver(compiled=True, sparsity=sparsity), dtype, device.type)
    same(found, walked(AdaptiveSolver(sparsity=sparsity), dtype))


def test_without_a_compiler_the_solver_is_refused(monkeypatch):
    monkeypatch.setattr(walks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'atmanrl\[numba\]'"):
        AdaptiveSolver(compiled=True)
    AdaptiveSolver()


def test_a_compiler_of_another_device_does_not_do(monkeypatch):
    monkeypatch.setattr(walks, "find_spec", lambda name: name == "triton" or None)
    with pytest.raises(UserError, match="needs numba on this device"):
        walked(AdaptiveSolver(compiled=True), torch.float32)


def test_a_device_without_a_kernel_takes_the_operations(monkeypatch):
    monkeypatch.delitem(walks.COMPILERS, "cpu")
    monkeypatch.setattr(walks, "find_spec", lambda name: object())
    monkeypatch.setattr(Walk, "_by_kernel", None)
    same(walked(AdaptiveSolver(compiled=True), torch.float32), walked(AdaptiveSolver(), torch.float32))
