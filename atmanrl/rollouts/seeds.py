"""Every sampled token's own random number.

A token is drawn with a uniform number that depends on (seed, split, update, dataset row, sample, token position) and
on nothing else: not on the batch that the rollout stands in, on finished rows being dropped, on the number of
processes or on a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, split: str, update: int, row: int, sample: int, count: int) -> Tensor:
    """Return numbers in [0, 1), float64 `[count]`: the t-th is for token position t, whatever `count` is."""
    key = blake2b(f"{seed}/{split}/{update}/{row}/{sample}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return torch.from_numpy(generator.random(count))


def group_uniforms(seed: int, split: str, update: int, rows: Sequence[int], samples: int, count: int) -> Tensor:
    """Return the uniform numbers of a group of each row's problem, `[Q, samples, count]` (see `uniforms`)."""
    groups = [[uniforms(seed, split, update, row, sample, count) for sample in range(samples)] for row in rows]
    return torch.stack([torch.stack(group) for group in groups])


@torch.library.custom_op("atmanrl::cumulated", mutates_args=())
def cumulated(probabilities: Tensor) -> Tensor:
    """Return the sums of the first 1, 2, ... V of `probabilities [B, V]`, in float64; a row sums to less than 16.

    They are summed as integers, in units of 2^-59: the order of summation has no effect, and so CUDA has a deterministic
    kernel, which for floating-point numbers it has not. For a compiler it is one operation: inductor (PyTorch 2.11) fails
    to make a kernel of a sum of integers over a row of 128,256.
    """
    units = 2.0**59
    return (probabilities.double() * units).long().cumsum(-1).double() / units


@cumulated.register_fake
def _(probabilities: Tensor) -> Tensor:
    return torch.empty_like(probabilities, dtype=torch.float64, memory_format=torch.contiguous_format)


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens `[B]` at which the cumulated `probabilities [B, V]` first exceed `uniform [B]` of their sum.

    A token of probability zero is never drawn.
    """
    cdf = cumulated(probabilities)
    total = cdf[:, -1:]
    # rounded up, a number next to 1 would ask for more than there is
    asked = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, asked, right=True)[:, 0].clamp(max=cdf.shape[-1] - 1)
