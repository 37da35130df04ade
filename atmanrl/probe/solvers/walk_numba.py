"""AdamW's steps between two gradients as one kernel for a CPU, compiled by numba at its first call and kept on disk.

Operations on whole vectors write and read each of a dozen of them in every step; here a block of values stays in the cache
from its first step to its last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numba
import numpy as np
from torch import Tensor

from atmanrl.probe.ragged import Ragged

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
UNREADABLE = (OSError, EOFError, UnpicklingError)
"""What is raised where machine code cannot be written to disk, or what is there not be read."""
BLOCK = 256
"""Values that go through all steps together: few enough for the first-level cache, and enough to fill vector registers."""


def walk(
    values: Tensor, m: Tensor, v: Tensor, last: Tensor, new: Tensor, table: Tensor, price: Tensor, ragged: Ragged,
    count: Tensor, factors: tuple[float, float, float, float],
) -> None:  # fmt: skip
    """Take `count [K]` steps of `values`, `m` and `v`, all `[P]`, in place.

    Args:
        values: of H.
        m: first moments.
        v: second moments.
        last: G at the sample before, `[P]`.
        new: G at the sample after, `[P]`.
        table: `[T, 4, K]`, see `Walk`.
        price: `[K]` the sparsity penalty's gradient in a value below 0.
        ragged: the layout of the values.
        count: steps of each target.
        factors: what weight decay leaves of a value, 1 - beta1, beta2, 1 - beta2.
    """
    of_values = values.numpy().dtype.type  # else a float32 mask would be computed in float64
    arrays = [each.numpy() for each in (values, m, v, last, new, table, price, ragged.ends, count)]
    numbers = [of_values(factor) for factor in factors]
    try:
        _kept(*arrays, *numbers)
    except UNREADABLE:  # before the first step was taken
        _made_anew(*arrays, *numbers)


def _walk(values, m, v, last, new, table, price, ends, count, keep, gain1, beta2, gain2):  # type: ignore[no-untyped-def]
    turn, zero = np.empty(BLOCK, values.dtype), values.dtype.type(0)
    begin = 0
    for k in range(len(ends)):
        below_zero = price[k]
        for start in range(begin, ends[k], BLOCK):
            stop = min(start + BLOCK, ends[k])
            h, first, second, direction = values[start:stop], m[start:stop], v[start:stop], new[start:stop]
            for i in range(stop - start):
                turn[i] = direction[i] - last[start + i]
            for t in range(count[k]):
                of_direction, of_turn, rate, eps = table[t, 0, k], table[t, 1, k], table[t, 2, k], table[t, 3, k]
                for i in range(stop - start):
                    gradient = of_direction * direction[i] + of_turn * turn[i]
                    gradient += below_zero if h[i] < zero else zero
                    first[i] += gain1 * (gradient - first[i])
                    second[i] = beta2 * second[i] + gain2 * (gradient * gradient)
                    h[i] = keep * h[i] + rate * first[i] / (math.sqrt(second[i]) + eps)
        begin = ends[k]


def _kept_on_disk(function: Callable[..., None]) -> Callable[..., None]:
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor a cache of the user's can be written to
        return _made_anew


_made_anew = numba.njit(**OPTIONS)(_walk)
_kept = _kept_on_disk(_walk)
