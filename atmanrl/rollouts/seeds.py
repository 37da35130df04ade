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


UNIT = 2.0**59
"""Probabilities are summed as integers, in units of 1/UNIT: the order of summation has no effect then, and so CUDA has a
deterministic kernel, which for floating-point numbers it has not. A row may sum to less than 16."""
BLOCK = 256
"""Tokens whose probabilities `inverse_cdf` sums before it looks at any of them alone."""


@torch.library.custom_op("atmanrl::cumulated", mutates_args=())
def cumulated(probabilities: Tensor) -> Tensor:
    """Return the sums of the first 1, 2, ... V of `probabilities [B, V]`, in float64; a row sums to less than 16.

    For a compiler it is one operation: inductor (PyTorch 2.11) fails to make a kernel of a sum of integers over a row of
    128,256.
    """
    return (probabilities * UNIT).long().cumsum(-1).double() / UNIT


@cumulated.register_fake
def _(probabilities: Tensor) -> Tensor:
    return torch.empty_like(probabilities, dtype=torch.float64, memory_format=torch.contiguous_format)


def by_blocks(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return what `inverse_cdf` does, in operations that have deterministic kernels on CUDA.

    Over a large vocabulary a row's every partial sum would be most of what a token costs to draw: the sums of blocks are
    looked at first, and then the partial sums within one block. As integers they are the same.
    """
    batch, vocabulary = probabilities.shape
    units = torch.empty(batch, -(-vocabulary // BLOCK) * BLOCK, dtype=torch.long, device=probabilities.device)
    units[:, :vocabulary], units[:, vocabulary:] = probabilities * UNIT, 0
    blocks = units.view(batch, -1, BLOCK)
    ends = blocks.sum(-1).cumsum(-1)
    total = ends[:, -1:].double()
    # rounded up, a number next to 1 would ask for more than there is
    asked = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    block = torch.searchsorted(ends.double(), asked, right=True).clamp(max=ends.shape[1] - 1)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0]
    before = ends.gather(1, block) - inside.sum(-1, keepdim=True)
    within = torch.searchsorted((before + inside.cumsum(-1)).double(), asked, right=True)
    return (block * BLOCK + within)[:, 0].clamp(max=vocabulary - 1)


@torch.library.custom_op("atmanrl::inverse_cdf", mutates_args=())
def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens `[B]` at which the cumulated `probabilities [B, V]` first exceed `uniform [B]` of their sum.

    A token of probability zero is never drawn. One operation for a compiler, like `cumulated`.
    """
    return by_blocks(probabilities, uniform)


@inverse_cdf.register_fake
def _(probabilities: Tensor, uniform: Tensor) -> Tensor:
    return uniform.new_empty(uniform.shape, dtype=torch.long)
