"""AdamW's steps between two gradients, which are extrapolated: 200 of them for each mask, and none needs the model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.ragged import Ragged
from atmanrl.probe.solvers.base import Solver
from atmanrl.probe.solvers.extrapolation import GradientSample, extrapolate

COMPILERS = {"cpu": "numba", "cuda": "triton"}
"""What compiles the steps on a device."""


@dataclass
class State:
    """The state of AdamW for K targets.

    Attributes:
        values: of H, `[P]`, ragged.
        m: first moments, `[P]`.
        v: second moments, `[P]`.
        step: steps taken, `[K]`.

    Example:
        Of one target with a mask of two values, before its first step:
        `State(values=tensor([-0.4, -0.4]), m=tensor([0.0, 0.0]), v=tensor([0.0, 0.0]), step=tensor([0]))`
    """

    values: Tensor
    m: Tensor
    v: Tensor
    step: Tensor

    def take(self, indices: Tensor, positions: Tensor) -> State:
        """Return a copy of some targets, whose values stand at `positions`."""
        return State(self.values[positions], self.m[positions], self.v[positions], self.step[indices])

    def put(self, indices: Tensor, positions: Tensor, other: State) -> None:
        """Write some targets back."""
        self.values[positions], self.m[positions], self.v[positions] = other.values, other.m, other.v
        self.step[indices] = other.step


class Walk:
    """Takes AdamW's steps with gradients extrapolated from two samples.

    Args:
        solver: whose learning rate, betas, weight decay, epsilon and sparsity apply.
        device: where the masks are.
        compiled: take all steps of some values before those of the next, in a kernel (`COMPILERS`). It rounds differently:
            on a CPU and in float32, after 40 steps from c, 4 % of the values differ, by at most 3 units in the last
            place. On another device, and with a subclass's own penalty, the steps are PyTorch's operations as without.

    Raises:
        UserError: the kernel for this device cannot be compiled here.
    """

    def __init__(self, solver: Solver, device: torch.device, compiled: bool) -> None:
        self.solver, self.kernel = solver, None
        if compiled and device.type in COMPILERS and type(solver).penalty is Solver.penalty:
            self.kernel = _kernel(COMPILERS[device.type])

    def __call__(
        self, state: State, last: GradientSample, new: GradientSample, count: Tensor, ragged: Ragged, init_value: float
    ) -> None:
        """Take `count [K]` steps in place; see `extrapolate` for the two samples."""
        table, solver, (beta1, beta2) = self._table(last, new, state.step, count), self.solver, self.solver.betas
        if self.kernel is None:
            self._by_operations(state, last, new, count, ragged, init_value, table)
        else:
            price = solver.price(ragged, init_value, table.dtype)
            factors = (1 - solver.lr * solver.weight_decay, 1 - beta1, beta2, 1 - beta2)
            self.kernel(
                state.values, state.m, state.v, last.direction, new.direction, table, price, ragged, count, factors
            )
        state.step += count

    def _table(self, last: GradientSample, new: GradientSample, step: Tensor, count: Tensor) -> Tensor:
        """Return what each step needs of a target, `[T, 4, K]`: factors of direction and turn, rate and epsilon.

        AdamW's update `lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)`, its fraction multiplied by
        root = sqrt(1 - beta2^t), needs no division of v: it is `rate * m / (sqrt(v) + root * eps)`.
        """
        steps = step + torch.arange(int(count.max()), device=step.device)[:, None]
        size, beyond = extrapolate(last, new, steps)
        (beta1, beta2), taken = self.solver.betas, (steps + 1).double()
        root = (1 - beta2**taken).sqrt()
        rate = self.solver.lr * root / (1 - beta1**taken)
        return torch.stack([-size, -size * beyond, -rate, self.solver.eps * root], dim=1).to(new.direction.dtype)

    def _by_operations(
        self, state: State, last: GradientSample, new: GradientSample, count: Tensor, ragged: Ragged, init_value: float,
        table: Tensor,
    ) -> None:  # fmt: skip
        """Step by step, all targets at once."""
        # in the order of their counts, targets that still have steps to take are a prefix of the vector, which shrinks
        order = count.argsort(descending=True)
        positions, part = ragged.positions(order), ragged.take(order)
        walking, direction = state.take(order, positions), new.direction[positions]
        turn, ends, counts = direction - last.direction[positions], part.ends.tolist(), count[order].tolist()
        (beta1, beta2), table, solver = self.solver.betas, table[:, :, order], self.solver
        active, under_way = len(counts), part
        for done in range(counts[0]):
            if counts[active - 1] <= done:
                active = bisect_left(counts, -done, key=lambda steps: -steps)
                under_way = Ragged(part.counts[:active])
            here = slice(0, ends[active - 1])
            of_direction, of_turn, rates, eps = under_way.spread(table[done, :, :active])
            gradient = torch.addcmul(of_direction.mul_(direction[here]), of_turn, turn[here])
            if solver.sparsity:
                gradient += solver.penalty(walking.values[here], under_way, init_value)
            m, v = walking.m[here].lerp_(gradient, 1 - beta1), walking.v[here]
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            # decoupled weight decay first, as torch.optim.AdamW has it
            walking.values[here].mul_(1 - solver.lr * solver.weight_decay).addcdiv_(rates.mul_(m), v.sqrt().add_(eps))
        state.put(order, positions, walking)


def _kernel(compiler: str) -> Callable[..., None]:
    try:
        module = import_module(f"atmanrl.probe.solvers.walk_{compiler}")
    except ImportError as error:
        remedy = "run pip install 'atmanrl[numba]', or " if compiler == "numba" else ""
        raise UserError(
            f"compiled (in YAML, of probe.solver) needs {compiler} here, which cannot be imported: {error}; {remedy}leave "
            "compiled out."
        ) from error
    found: Callable[..., None] = module.walk
    return found
