"""Every sampled token's own random number.

A token is drawn with a uniform number that depends on (seed, split, update, dataset row, sample, token position) and
on nothing else: not on the batch that the rollout stands in, on finished rows being dropped, on the number of
processes or on a restart.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, split: str, update: int, row: int, sample: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 `[count]`; the t-th is for token position t, whatever `count` is."""
    key = blake2b(f"{seed}/{split}/{update}/{row}/{sample}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return torch.from_numpy(generator.random(count))


def cumulated(probabilities: Tensor) -> Tensor:
    """Sums of the first 1, 2, ... V of `probabilities [B, V]`, in float64.

    Summed as integers, in units of 2^-60: exact, the same in any order of summation, and deterministic on CUDA, where a
    sum of floating-point numbers is not.
    """
    unit = 2.0**60
    return (probabilities.double() * unit).long().cumsum(-1).double() / unit


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The tokens `[B]` at which the cumulated `probabilities [B, V]` first exceed `uniform [B]`, a part of their sum.

    A token of probability zero is never drawn.
    """
    cdf = cumulated(probabilities)
    total = cdf[:, -1:]
    # rounded up, a number next to 1 would ask for more than there is
    asked = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, asked, right=True)[:, 0].clamp(max=cdf.shape[-1] - 1)
