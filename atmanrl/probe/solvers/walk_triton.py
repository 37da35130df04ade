"""AdamW's steps between two gradients as one Triton kernel: a value stays in registers from its first step to its last."""

# what a kernel is handed are Triton's tensors and compile-time constants, for which there are no types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atmanrl.probe.ragged import Ragged

BLOCK = 256
"""Values of a program."""


def walk(
    values: Tensor, m: Tensor, v: Tensor, last: Tensor, new: Tensor, table: Tensor, price: Tensor, ragged: Ragged,
    count: Tensor, factors: tuple[float, float, float, float],
) -> None:  # fmt: skip
    """Take `count [K]` steps in place; the arguments are those of `walk_numba.walk`."""
    targets = ragged.spread(torch.arange(len(count), device=values.device))
    constants = torch.tensor(factors, dtype=values.dtype, device=values.device)  # a number would be passed as float32
    _walk[(triton.cdiv(ragged.total, BLOCK),)](
        values, m, v, last, new, table, price, targets, count, constants, ragged.total, len(count), len(table), BLOCK,
        num_warps=4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["total", "number", "longest"])
def _walk(
    values, m, v, last, new, table, price, targets, count, constants, total, number, longest, BLOCK: tl.constexpr
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    target = tl.load(targets + at, mask=inside, other=0)
    steps = tl.load(count + target, mask=inside, other=0)
    below_zero = tl.load(price + target, mask=inside, other=0.0)
    keep, gain1 = tl.load(constants), tl.load(constants + 1)
    beta2, gain2 = tl.load(constants + 2), tl.load(constants + 3)
    h = tl.load(values + at, mask=inside, other=0.0)
    first = tl.load(m + at, mask=inside, other=0.0)
    second = tl.load(v + at, mask=inside, other=0.0)
    direction = tl.load(new + at, mask=inside, other=0.0)
    turn = direction - tl.load(last + at, mask=inside, other=0.0)
    for t in range(0, longest):
        going = t < steps
        row = table + t * 4 * number + target
        of_direction = tl.load(row, mask=going, other=0.0)
        of_turn = tl.load(row + number, mask=going, other=0.0)
        rate = tl.load(row + 2 * number, mask=going, other=0.0)
        eps = tl.load(row + 3 * number, mask=going, other=1.0)
        gradient = of_direction * direction + of_turn * turn + tl.where(h < 0, below_zero, 0.0)
        first = tl.where(going, first + gain1 * (gradient - first), first)
        second = tl.where(going, beta2 * second + gain2 * gradient * gradient, second)
        h = tl.where(going, keep * h + rate * first / (tl.sqrt(second) + eps), h)
    tl.store(values + at, h, mask=inside)
    tl.store(m + at, first, mask=inside)
    tl.store(v + at, second, mask=inside)
