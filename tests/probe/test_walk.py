"""AdamW's steps between gradients: by operations, by numba's kernel, and by `torch.optim.AdamW`."""

from pickle import UnpicklingError

import numpy as np
import pytest
import torch

from atmanrl.errors import UserError
from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.probe.ragged import Ragged
from atmanrl.probe.solvers import walk as walks
from atmanrl.probe.solvers.extrapolation import GradientSample, extrapolate
from atmanrl.probe.solvers.walk import State, Walk
from atmanrl.probe.target import Target

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
    walk, ragged = Walk(solver, state.values.device, solver.compiled), Ragged(torch.tensor(SIZES, device=device))
    walk(state, GradientSample(*last), GradientSample(*new), COUNTS.to(device), ragged, C)
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


def test_masks_are_those_of_the_operations(tiny_policy):
    pytest.importorskip("numba")
    tiny_policy.float()
    case = Target((5, 6), (7, 8, 9, 10), (11,), (12, 13))
    found = [
        MaskProbe(solver=AdaptiveSolver(tolerance=0.1, steps=20, compiled=compiled)).solve_targets(tiny_policy, [case])
        for compiled in (False, True)
    ]
    assert found[0].saliency[0] == pytest.approx(found[1].saliency[0], abs=1e-6) and any(found[0].saliency[0])


def test_where_no_place_is_for_machine_code_it_is_made_anew(monkeypatch):
    numba = pytest.importorskip("numba")
    from atmanrl.probe.solvers import walk_numba

    def njit(**options):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba, "njit", njit)
    assert walk_numba._kept_on_disk(lambda: None) is walk_numba._made_anew


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), EOFError(), UnpicklingError("truncated")])
def test_machine_code_that_cannot_be_written_or_read_is_made_anew(monkeypatch, error):
    pytest.importorskip("numba")
    from atmanrl.probe.solvers import walk_numba

    def kept(*arguments):
        raise error

    expected = walked(AdaptiveSolver(compiled=True), torch.float32)
    monkeypatch.setattr(walk_numba, "_kept", kept)
    found = walked(AdaptiveSolver(compiled=True), torch.float32)
    assert found.values.equal(expected.values) and found.v.equal(expected.v)


@pytest.mark.gpu
@pytest.mark.parametrize("sparsity", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_on_the_device_takes_the_same_steps(device, dtype, sparsity):
    found = walked(AdaptiveSolver(compiled=True, sparsity=sparsity), dtype, device.type)
    same(found, walked(AdaptiveSolver(sparsity=sparsity), dtype))


@pytest.mark.parametrize("compiler", ["numba", "triton"])
def test_without_its_compiler_the_solver_is_refused(monkeypatch, compiler):
    def no_module(name):
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(walks, "import_module", no_module)
    monkeypatch.setitem(walks.COMPILERS, "cpu", compiler)
    with pytest.raises(
        UserError, match=f"compiled .* needs {compiler} here, .*: Numba needs NumPy.*leave compiled out"
    ) as error:
        walked(AdaptiveSolver(compiled=True), torch.float32)
    assert ("pip install 'atmanrl[numba]'" in str(error.value)) == (compiler == "numba")
    walked(AdaptiveSolver(), torch.float32)


def test_a_device_without_a_kernel_takes_the_operations(monkeypatch):
    monkeypatch.delitem(walks.COMPILERS, "cpu")
    assert Walk(AdaptiveSolver(), torch.device("cpu"), compiled=True).kernel is None


def test_a_penalty_of_ones_own_takes_the_operations():
    class Half(AdaptiveSolver):
        def penalty(self, values, ragged, init_value):
            return torch.full_like(values, 0.5)

    same(walked(Half(compiled=True, sparsity=0.1), torch.float32), walked(Half(sparsity=0.1), torch.float32))
